"""Whole processes: signals, kill -9, start and stop."""
