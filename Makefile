# make demo   the whole pipeline on data that ships with a dependency, a few minutes on two cores
# make test   everything CI runs: format, lint, types, import borders, tests
# make lowest the formulas' tests with the oldest torch and the oldest other packages that pyproject.toml allows
PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint types borders unit lowest formulas format clean

demo: $(READY)
	$(BIN)/waveq demo

test: lint types borders unit

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

borders: $(READY)
	$(BIN)/lint-imports

unit: $(READY)
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

lowest:
	$(MAKE) VENV=.venv-lowest CONSTRAINTS=constraints-lowest.txt formulas

formulas: $(READY)
	$(BIN)/python -m pytest -q $(addprefix tests/waveq/,test_boundaries.py test_functional.py kernels quantizers)

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(READY): pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "waveq needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "could not make a virtual environment in $(VENV): on Debian and Ubuntu install python3-venv"; exit 1; }
	$(BIN)/python -m pip install -q -c $(CONSTRAINTS) -e ".[test]"
	@touch $@

clean:
	rm -rf $(VENV) .venv-lowest build *.egg-info .mypy_cache .ruff_cache .import_linter_cache .hypothesis
