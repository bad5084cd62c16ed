# One command for each habit. Every target does its own set-up: Python 3.11+ (with pip and venv) and make suffice.
#
#   make demo ARGS=--once      make test ARGS='tests/model -x'      make bench ARGS=--help

VENV ?= .venv
BIN   = $(VENV)/bin
STAMP = $(VENV)/.set-up
# Workers for the tests: one per core, and no more than eight servers' worth of them at a time.
JOBS ?= logical
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test torture check format bench lock wheel clean distclean

help: ## this list
	@echo "Headgate: one API, three channels, one ledger."
	@echo
	@grep -E '^[a-z]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 18
	@echo
	@echo "The first of them creates $(VENV) from requirements/dev.txt (about a minute); later ones start at once."

$(STAMP): requirements/dev.txt pyproject.toml scripts/setup
	@scripts/setup "$(VENV)"

setup: $(STAMP) ## the virtual environment, from the hash-locked requirements

demo: $(STAMP) ## the whole story on this machine: three channels, real HTTP, one report
	@$(BIN)/headgate demo $(ARGS)

test: $(STAMP) ## all tests (some minutes); ARGS selects
	@echo "test: all of tests/ on $(JOBS) cores, some minutes; a choice: make test ARGS='tests/model -x'"
	@$(BIN)/python -m pytest -n $(JOBS) --maxprocesses 8 --dist loadfile $(ARGS)

torture: $(STAMP) ## 100,000 mixed requests, faults and kills, then the audit (many minutes); ARGS=--help
	@$(BIN)/python -m tests.torture $(ARGS)

check: $(STAMP) ## ruff, strict types, structure tests (under a minute)
	@echo "check: ruff check"         && $(BIN)/ruff check .
	@echo "check: ruff format"        && $(BIN)/ruff format --check .
	@echo "check: mypy --strict"      && $(BIN)/mypy --strict
	@echo "check: structure"          && $(BIN)/python -m pytest -q -p no:cacheprovider tests/test_tidy.py

format: $(STAMP) ## put the code into the form that check wants
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

bench: $(STAMP) ## side by side with peers, as ratios (some minutes)
	@$(BIN)/python -m benchmarks $(ARGS)

lock: $(STAMP) ## requirements/*.txt from pyproject.toml and dev.in; ARGS=--upgrade takes newer versions
	@PYTHON=$(BIN)/python scripts/lock $(ARGS)

wheel: $(STAMP) ## dist/headgate-*.whl
	@$(BIN)/python -m build --wheel --no-isolation --outdir dist

clean: ## caches and built files; the virtual environment stays
	rm -rf dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find src tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

distclean: clean ## clean, and the virtual environment too
	rm -rf "$(VENV)"
