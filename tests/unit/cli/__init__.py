"""Units of gateway.cli."""
