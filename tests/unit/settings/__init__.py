"""Units of gateway.settings."""
