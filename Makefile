# make demo   the whole pipeline on data that ships with a dependency, a few minutes on two cores
# make quick  the tests that take 0.15 s of processor time at most: under a minute on two cores
# make test   everything CI runs: format, lint, types, import borders, tests, kernels uncompiled, coverage
# make docs   the site in site/: pages, API, notebooks (executed); broken links are errors
# make models networks and training loops of other packages (timm, transformers, accelerate): what docs/models.md shows
# make fuzz   ten minutes of damaged files against their readers, with a table of counts (docs/reliability.md)
# make kills  training, two ranks and enumeration killed at random moments and called again, with a table of counts
# make soak   3,000 steps and 400 calls of the command line in one process: memory, descriptors and step time
# make minima the core tests of all three packages with the oldest versions that pyproject.toml allows
# make newest the same with the newest that can be had
PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DOCS := $(VENV)/.docs

.PHONY: demo quick test lint types borders unit kernels coverage docs models fuzz kills soak minima newest core format clean

demo: $(READY)
	$(BIN)/waveq demo

quick: $(READY)
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not slow" tests

test: lint types borders unit kernels coverage docs

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/towncrier build --draft --version next > /dev/null

types: $(READY)
	$(BIN)/mypy

borders: $(READY)
	$(BIN)/lint-imports

unit: $(READY)
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --cov --cov-report= --cov-fail-under=0

# the compiled loops once more as plain Python, where coverage can see into them
kernels: $(READY)
	NUMBA_DISABLE_JIT=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not slow" --cov --cov-append --cov-report= --cov-fail-under=0 \
	  $(addprefix tests/,pareto stripes_sim waveq/kernels)

coverage: $(READY)
	$(BIN)/coverage report --skip-covered --sort=cover

docs: $(DOCS)
	$(BIN)/python -m tools.notebooks
	$(BIN)/zensical build --clean --strict

models: $(READY)
	$(BIN)/python -m pip install -q -c $(CONSTRAINTS) -e ".[test,models]"
	$(BIN)/python -m pytest -q -n 2 --dist loadfile tests/benchmarks/reach "tests/waveq/test_docs.py::test_blocks_of_python_run[hugging_face]"

fuzz: $(READY)
	$(BIN)/python -m tests.fuzz --seconds 600 --seed $(or $(SEED),0)

kills: $(READY)
	$(BIN)/python -m tests.kills --attempts $(or $(ATTEMPTS),20) --seed $(or $(SEED),0)

soak: $(READY)
	$(BIN)/python -m benchmarks soak

minima:
	$(MAKE) VENV=.venv-minima CONSTRAINTS=constraints-minima.txt core

newest:
	$(MAKE) VENV=.venv-newest CONSTRAINTS=/dev/null core

core: $(READY)
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not slow" $(addprefix tests/,pareto stripes_sim waveq/cli waveq/zoo waveq/test_policy.py)
	$(BIN)/python -m pytest -q $(addprefix tests/waveq/,test_boundaries.py test_functional.py test_without_torch.py kernels quantizers)

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

$(DOCS): $(READY)
	$(BIN)/python -m pip install -q -c $(CONSTRAINTS) -e ".[test,docs]"
	@touch $@

clean:
	rm -rf $(VENV) .venv-minima .venv-newest build site docs/notebooks .cache *.egg-info .mypy_cache .ruff_cache .import_linter_cache .hypothesis
