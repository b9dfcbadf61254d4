"""Parsing and reporting of the benchmarks, without any process."""
