"""Units of gateway.observe."""
