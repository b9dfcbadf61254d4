"""`python -m gateway.dev.engine`: the simulated engine without the rest of the `penstock` command."""

import typer

from gateway.dev.engine.cli import engine

if __name__ == "__main__":
    typer.run(engine)
