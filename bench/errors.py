"""The one error of the benchmarks: what a person has to read, without a traceback."""


class BenchError(Exception):
    """A benchmark cannot run, or its figures would mean nothing; the message says why and what to do."""
