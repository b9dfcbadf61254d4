"""Units of gateway.providers."""
