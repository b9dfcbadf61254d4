"""Passes a call to an engine and the answer back: bytes through with back-pressure, tokens counted as they go by."""
