"""Units of the simulated engine."""
