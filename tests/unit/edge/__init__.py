"""Units of gateway.edge."""
