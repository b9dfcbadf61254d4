"""Entry of `penstock` and of `python -m gateway`. Imports nothing before it has to."""

import sys


def main() -> None:
    """Run the command line and exit with its code."""
    from gateway.cli.run import run  # noqa: PLC0415 - an interrupt during the imports is an exit, not a traceback

    sys.exit(run())


if __name__ == "__main__":
    main()
