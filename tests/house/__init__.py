"""The style of the code as tests: fast, without servers, run by `make check`."""
