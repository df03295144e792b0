# One command from nothing: `make test` sets up a virtual environment in the checkout and checks everything.
PYTHON ?= python3
BIN := .venv/bin
SETUP := .venv/.ready
# Byte code is made when a module is first imported: installing takes half the time.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
# In a folder of their own, which tests/lpips_alone.py alone looks into: the registry's torchvision is of a
# CUDA build of torch, and beside a CPU build the rest would no longer import.
LPIPS := lpips==0.1.4 torchvision==0.28.0
# Kept from then on, whatever the shell says: else every process compiles torch and diffusers again.
unexport PYTHONDONTWRITEBYTECODE
WORKERS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: setup test test-all style types units demo paper bench clean

test: style types units

test-all: style types
	$(PYTEST) -m "slow or not slow"

$(SETUP): Makefile requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(INSTALL) torch==2.13.0
	$(INSTALL) -r requirements.txt
	$(INSTALL) --no-deps -e .
	$(INSTALL) --no-deps --upgrade --target .venv/lpips $(LPIPS)
	touch $@

setup: $(SETUP)

style: $(SETUP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(SETUP)
	$(BIN)/pyright

units: $(SETUP)
	$(PYTEST)

demo: $(SETUP)
	$(BIN)/python -m analysis.paper --config-name demo

paper: $(SETUP)
	$(BIN)/python -m analysis.paper

bench: $(SETUP)
	$(BIN)/python -m tests.bench

clean:
	rm -rf .venv outputs runs
