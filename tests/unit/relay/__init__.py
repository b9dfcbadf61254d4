"""Units of gateway.relay."""
