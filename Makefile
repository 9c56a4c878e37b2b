# The two commands of the README: make demo, make test. Each makes its own virtual
# environment (.venv) where none is active, installs into it, and runs.

PYTHON ?= python3
JOBS ?= 2
ifdef VIRTUAL_ENV
  BIN := $(VIRTUAL_ENV)/bin
else
  BIN := .venv/bin
endif
# Constraints for one TensorFlow, e.g. make test TENSORFLOW='tensorflow==2.15.1'
TENSORFLOW ?=

.PHONY: demo test test-full lint install clean

demo: install
	$(BIN)/python scripts/demo/digits.py

test: install
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not full"

test-full: install
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

install: $(BIN)/.estimator_tl_installed

$(BIN)/python:
	$(PYTHON) -m venv .venv

$(BIN)/.estimator_tl_installed: setup.py pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[test,demo]" $(TENSORFLOW)
	touch $@

clean:
	rm -rf .venv build dist *.egg-info
