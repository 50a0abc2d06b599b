# make demo            every step on the real images that ship, ending in a report
# make demo DATA=DIR   the same on your own labelled images
# make test            format check, lint, types, tests
# make docs            the documentation as a site, in build/docs/site
# make release         wheel and sdist into dist/, tried in clean environments, with SBOM and digests (KEY=FILE signs)
# make speed           speed and memory beside other packages, in one table (DATA=DIR: with real images)
# Each target sets up .venv itself; PYTHON=python3.12 chooses another interpreter.
PYTHON ?= python3
VENV ?= .venv
OUT ?= demo-output
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help setup demo test docs release speed bench lint format clean

help:
	@sed -n '1,7p' Makefile

setup: $(VENV)/.installed

# pyproject.toml says which versions are allowed; constraints.txt pins those that were tested.
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

# What builds the page, and tests it: only where there is Node. Without it, or offline, those tests are skipped.
PAGE_TOOLS := $(if $(shell command -v npm),web/node_modules/.package-lock.json)

web/node_modules/.package-lock.json: web/package-lock.json
	@cd web && npm ci --silent || echo "npm ci failed: tests that build the page are skipped"

test: lint $(PAGE_TOOLS)
	@if $(BIN)/python -c 'import zensical' 2>/dev/null; then $(BIN)/python -m docs.site; fi
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal

docs: setup
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	$(BIN)/python -m docs.site

release: setup
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[release]'
	$(BIN)/python -m release $(if $(KEY),--key "$(KEY)")

bench: speed # the old name, for one version

speed: setup
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench,export,openvino]'
	$(BIN)/python -m perf.speed $(if $(DATA),--data "$(DATA)/BUS-UCLM" "$(DATA)/Dataset_BUSI_with_GT")

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) $(OUT) .mypy_cache .ruff_cache .pytest_cache
