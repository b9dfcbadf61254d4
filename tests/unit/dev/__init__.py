"""Units of gateway.dev."""
