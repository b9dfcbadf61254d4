"""Units of gateway.settle."""
