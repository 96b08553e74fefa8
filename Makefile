# Two commands for a fresh machine: make quickstart, make test.
SHELL := /bin/bash
export PYTHONSAFEPATH := 1
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
BUDGET ?= 45
OUT ?= quickstart

.PHONY: setup quickstart test check slow slow-full clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[all,dev]'
	touch $@

quickstart: setup
	$(BIN)/kvlp quickstart --out $(OUT)

test: setup
	$(BIN)/pytest -n 2

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
