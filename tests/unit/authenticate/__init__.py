"""Units of gateway.authenticate."""
