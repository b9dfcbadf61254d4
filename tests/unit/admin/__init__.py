"""Units of gateway.admin."""
