"""Units of gateway.admit."""
