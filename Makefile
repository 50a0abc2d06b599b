# make demo            the whole story on simulated images that the package draws itself
# make demo DATA=DIR   the same on your own folder
# make test            format check, lint, types, tests
# make speed           speed and memory, each beside a peer in the same run: one table (DATA=DIR: with real images)
# Each target sets up .venv by itself; PYTHON=python3.12 picks another interpreter.
PYTHON ?= python3
VENV ?= .venv
OUT ?= demo-output
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help setup demo test speed bench lint format clean

help:
	@sed -n '1,5p' Makefile

setup: $(VENV)/.installed

# constraints.txt holds the versions this project was tested with. pyproject.toml alone says what is allowed.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "ultraad needs Python >= 3.11, found " + sys.version.split()[0] + ". Try: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: setup
	$(BIN)/ultraad demo --output "$(OUT)" $(if $(DATA),--data "$(DATA)")

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal

bench: speed # the old name, for one version

speed: setup
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench,export,openvino]'
	$(BIN)/python -m perf.speed $(if $(DATA),--data "$(DATA)/BUS-UCLM" "$(DATA)/Dataset_BUSI_with_GT")

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) $(OUT) .mypy_cache .ruff_cache .pytest_cache
