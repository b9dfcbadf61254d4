"""Connections to engines, against servers that do byte by byte what a test tells them to."""
