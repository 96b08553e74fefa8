# Two commands for a fresh machine: make quickstart, make test.
SHELL := /bin/bash
export PYTHONSAFEPATH := 1
# Compiled modules are kept, also where the environment says otherwise: each worker and child process would compile anew.
unexport PYTHONDONTWRITEBYTECODE
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OUT ?= quickstart
# The slow tier: minutes to spend, and how large each size-taking test is (1 = full size).
BUDGET ?= 45
SHARE ?= 0.25

.PHONY: help setup quickstart test check slow slow-full clean

help:
	@echo "make quickstart   the whole way once on synthetic radiographs; writes $(OUT)/report.html"
	@echo "make test         unit tests"
	@echo "make check        style, safety, types, import rules"
	@echo "make slow         a rotating share of the slow tests within BUDGET=$(BUDGET) minutes"
	@echo "make slow-full    all slow tests at full size; figures go to docs/figures/slow.json"

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[all,dev]'
	touch $@

quickstart: setup
	$(BIN)/kvlp quickstart --out $(OUT)

test: setup
	$(BIN)/pytest -n 2 --dist loadfile

check: setup
	$(BIN)/python .ci/check.py

slow: setup
	$(BIN)/python .ci/slow.py --budget $(BUDGET) --share $(SHARE)

slow-full: setup
	$(BIN)/python .ci/slow.py --share 1 --figures docs/figures/slow.json

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
