"""Benchmarks of the gateway: a flat-out engine and a load client in C, and the runner behind `make bench`.

Nothing in here is part of the product; it starts real servers and measures the gateway between them from outside.
"""
