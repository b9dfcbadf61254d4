# Penstock: every target works on a fresh clone with Python 3.11 or newer, as root or not. `make help` lists them.

.DEFAULT_GOAL := help
.PHONY: help run install install-test check test test-again chaos soak guarantees test-real-engine bench demo-opencode docs lock clean

BIN := .venv/bin
COVERAGE_MIN := 90
# Processes that share the test suite, a file of it at a time; each has a PostgreSQL and a Redis of its own. Files are handed
# out in order of their names: tests/chaos comes first, so that its long runs go beside everything else.
WORKERS ?= logical
PIN := uv pip compile --universal --python-version 3.11 --generate-hashes --no-header
LOCK := $(PIN) --extra dev-servers --group build

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: install ## Run everything here: PostgreSQL, Redis, two simulated engines, the gateway (ARGS="--port 8081 ...")
	@$(BIN)/penstock dev $(ARGS)

install: ## Make .venv from the lock file (done by the other targets when it is needed)
	@scripts/install run

install-test:
	@scripts/install test

check: install-test ## Style, types, import rules and house tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest tests/house

test: install-test ## The whole test suite, with coverage (ARGS="-k name" for a part of it, WORKERS=0 in one process)
	@$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest --numprocesses $(WORKERS) --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)
	@$(BIN)/coverage combine --quiet
	$(BIN)/coverage report $(if $(ARGS),,--fail-under=$(COVERAGE_MIN))

test-again: install-test ## What failed in the last `make test` once more, by itself
	$(BIN)/coverage run -m pytest --last-failed --last-failed-no-failures none
	@$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --fail-under=$(COVERAGE_MIN)

chaos: install-test ## Kill, cut and stop everything under load, then check the books (ARGS="--minutes 30 --kills 200 --seed 1")
	@$(BIN)/python -m tests.chaos $(ARGS)

soak: install-test ## Steady load under which nothing may grow (ARGS="--minutes 30")
	@$(BIN)/python -m tests.chaos.soak $(ARGS)

guarantees: install-test ## Measure every promise and write docs/guarantees.md (ARGS='--chaos="--minutes 30 --kills 200" --soak="--minutes 30"')
	@$(BIN)/python -m tests.guarantees $(ARGS)

test-real-engine: install-test ## Penstock before real inference servers (ARGS="-k llama_cpp" for one; see docs/real-engines.md)
	$(BIN)/pytest -v --capture=no tests/real_engine $(ARGS)

bench: install ## Measure speed on this machine (ARGS="--help" lists what there is)
	@$(BIN)/python -m bench $(ARGS)

demo-opencode: install-test ## Let the real OpenCode work through the gateway, then compare ledger and engine
	@$(BIN)/python -m tests.contract.opencode_demo $(ARGS)

docs: install ## Write docs/configuration.md again from the settings
	$(BIN)/python -m gateway.settings.reference > docs/configuration.md

lock: ## Pin all dependencies again, with hashes (needs uv)
	@command -v uv >/dev/null || { echo "uv is missing: pip install uv, or see https://docs.astral.sh/uv"; exit 1; }
	$(LOCK) --upgrade pyproject.toml -o requirements/run.txt
	$(LOCK) --upgrade --group test --extra parquet --constraint requirements/run.txt pyproject.toml -o requirements/test.txt
	$(LOCK) --upgrade --extra litellm --constraint requirements/run.txt pyproject.toml -o requirements/litellm.txt
	$(PIN) --upgrade --group real-engine-build -o requirements/real-engine-build.txt
	$(PIN) --upgrade --group real-engine-llama-cpp -o requirements/real-engine-llama-cpp.txt
	# triton compiles kernels for GPUs, which nothing here has: 1 GB less.
	$(PIN) --upgrade --group real-engine-transformers --no-emit-package triton -o requirements/real-engine-transformers.txt

clean: ## Remove .venv and all caches; the data of `make run` in .penstock stays
	rm -rf .venv .cache .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	rm -rf build dist htmlcov bench/build bench/results
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
