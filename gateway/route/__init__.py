"""Which engine serves a call: pools, their engines' load and health, and the one retry before the first byte."""
