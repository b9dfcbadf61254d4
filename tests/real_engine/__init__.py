"""Real inference servers behind the gateway. Not part of `make test`: `make test-real-engine` runs these."""
