# One command for each thing that a person or CI does here; `make help` lists them.
STUDY ?= small_similar
ARGS ?=
PYTHON ?= python3
VENV ?= .venv
LOWEST := $(VENV)-lowest
IN_VENV := $(VENV)/bin/python -m
PYTEST := $(IN_VENV) pytest -n auto --maxprocesses 4 --dist loadfile --durations 8
NO_PYTHON := error: there is no $(PYTHON); install Python 3.11 or newer, or name yours: add PYTHON=python3.12

.DEFAULT_GOAL := help
.PHONY: help environment run studies test test-slow test-lowest test-all audit benchmark scaling statistics format constraints clean clean-cache

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

environment: ## make .venv, or renew it; nothing to do is quickly done
	@command -v $(PYTHON) >/dev/null || { echo "$(NO_PYTHON)" >&2; exit 1; }
	@$(PYTHON) tools/environment.py $(VENV)

run: environment ## run a study: make run STUDY=large_different ARGS="--budget smoke"
	@$(IN_VENV) bench run $(STUDY) $(ARGS)

studies: environment ## run the four studies and compare them
	@$(IN_VENV) bench run all $(ARGS)

test: environment ## format, lint, types and all tests but the slow ones
	$(IN_VENV) ruff format --check .
	$(IN_VENV) ruff check .
	$(IN_VENV) mypy
	$(PYTEST) -m "not slow"

test-slow: environment ## the slow tests
	$(PYTEST) -m slow

test-lowest: ## the quick tests on the lowest versions that pyproject.toml allows
	@command -v $(PYTHON) >/dev/null || { echo "$(NO_PYTHON)" >&2; exit 1; }
	@$(PYTHON) tools/environment.py --lowest $(LOWEST)
	$(LOWEST)/bin/python -m pytest -m "not slow"

test-all: ## all of these
	@$(MAKE) --no-print-directory test
	@$(MAKE) --no-print-directory test-lowest
	@$(MAKE) --no-print-directory test-slow

audit: environment ## look for known holes in the dependencies; needs the network
	$(IN_VENV) pip_audit --requirement constraints.txt --no-deps --disable-pip

benchmark: environment ## measure speed beside what people do today, into reports/performance; an hour
	$(IN_VENV) benchmarks $(ARGS)

scaling: environment ## measure what a cluster costs (Ray, MLflow's server, PostgreSQL), into reports/scaling; some 10 minutes
	$(IN_VENV) benchmarks.scaling $(ARGS)

statistics: environment ## simulate how often verdicts are wrong, into reports/statistics; some 20 minutes
	$(IN_VENV) benchmarks.statistics $(ARGS)

format: environment ## format the code and mend what the linter can
	$(IN_VENV) ruff format .
	$(IN_VENV) ruff check --fix .

constraints: environment ## resolve the dependencies anew into constraints.txt
	$(VENV)/bin/python tools/constraints.py

clean: ## remove what can be made again; results stay
	rm -rf $(VENV) $(LOWEST) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find bench benchmarks tests tools -name __pycache__ -exec rm -rf {} +

clean-cache: ## remove the installed dependencies that all clones share
	rm -rf "$${XDG_CACHE_HOME:-$$HOME/.cache}/transfer-bench/venv"
