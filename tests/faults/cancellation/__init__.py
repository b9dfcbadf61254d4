"""A request cancelled at every place where it may be suspended."""
