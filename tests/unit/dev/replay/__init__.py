"""Units of the replay."""
