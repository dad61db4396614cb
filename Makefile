.DEFAULT_GOAL := help
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Python compiles a module when it first imports it; to compile all of them here takes two minutes. What it
# compiles must be kept, or every process does it again, for half of the time that a test of processes takes.
unexport PYTHONDONTWRITEBYTECODE
INSTALL := $(PIP) install --no-compile -c constraints.txt
PYTEST = $(BIN)/python -m pytest -n logical --dist loadgroup
# The tracer adds a third to the time of the tests, so only `make test COVERAGE=1` (as .ci/run does) switches it on.
TRACED = $(if $(COVERAGE),--cov --cov-branch --cov-fail-under=90)
SOURCES := tunepoint tests benchmarks

help: ## Explain every target
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "Installing into $(VENV) (some minutes the first time) ..."
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) torch==2.13.0
	$(INSTALL) -e '.[tune,llm]'
	@touch $@

$(VENV)/.developing: $(VENV)/.installed
	$(INSTALL) -e '.[tune,llm,dev]'
	@touch $@

install: $(VENV)/.installed ## Create the environment that runs Tunepoint

demo: $(VENV)/.installed ## Run the whole main job on examples/support-triage
	$(BIN)/tunepoint demo

demo-live: $(VENV)/.installed ## The same with the language model itself asked, an hour or more; compares it with the recording
	$(BIN)/tunepoint models pull qwen2.5-coder-0.5b
	$(BIN)/tunepoint demo --live

record-demo: $(VENV)/.installed ## Record the language model's replies that the demo takes, an hour or more
	$(BIN)/tunepoint models pull qwen2.5-coder-0.5b
	$(BIN)/python examples/record.py

loop: $(VENV)/.installed ## Run the whole loop on examples/support-triage: prompt, collect, tune, canary, promote, drift
	$(BIN)/python examples/support-triage/loop.py

test: $(VENV)/.developing ## Run the tests on all cores (COVERAGE=1: with branch coverage, at least 90%)
	$(PYTEST) -m "not slow and not weights" --durations=20 $(TRACED)

test-fast: $(VENV)/.developing ## Run the tests that train nothing and start no server or browser
	$(PYTEST) -m "not slow and not weights and not heavy"

test-slow: $(VENV)/.developing ## Run the simulations that take minutes
	$(BIN)/python -m pytest -m slow

test-weights: $(VENV)/.developing ## Run the tests of the larger language models of this machine, which pull 1.6 GB
	$(BIN)/python -m pytest -m weights

lint: $(VENV)/.developing ## Check style and format
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)

types: $(VENV)/.developing ## Check types, strictly
	$(BIN)/mypy

format: $(VENV)/.developing ## Format the code
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

bench: $(VENV)/.developing ## Run the benchmarks; each prints a table and a line of JSON
	$(BIN)/python benchmarks/decide.py
	$(BIN)/python benchmarks/encoder.py $(BANKING77)

architecture: ## Draw the imports and list the modules again, in the docs
	$(PYTHON) tests/architecture.py

screenshots: $(VENV)/.developing ## Take the pictures of the docs from the demo's study
	$(BIN)/python docs/screenshots.py $(STUDY)

wheel: $(VENV)/.developing ## Build the wheel into dist/
	$(BIN)/python -m build --wheel

clean: ## Remove the environment and everything that was built
	rm -rf $(VENV) dist build studies .coverage .pytest_cache .mypy_cache .ruff_cache

.PHONY: help install demo demo-live record-demo loop test test-fast test-slow test-weights lint types format bench architecture screenshots wheel clean
