# One command from nothing: `make test` sets up a virtual environment in the checkout and checks everything.
PYTHON ?= python3
BIN := .venv/bin
SETUP := .venv/.ready

.PHONY: setup test style types units demo bench clean

test: style types units

$(SETUP): requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

setup: $(SETUP)

style: $(SETUP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(SETUP)
	$(BIN)/pyright

units: $(SETUP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest

demo: $(SETUP)
	$(BIN)/python -m probes experiment=demo

bench: $(SETUP)
	$(BIN)/python -m tests.bench

clean:
	rm -rf .venv outputs runs
