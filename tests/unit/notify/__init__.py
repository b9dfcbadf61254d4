"""Units of gateway.notify."""
