# Needs python3 (3.11 or newer), python3-venv and make; everything else goes
# into .venv, which each target makes or brings up to date by itself.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PACKAGING := pyproject.toml setup.cfg
SOURCES := hoft twisted tests $(wildcard benchmarks demo docs/conf.py)
# Tests that consist of whole processes, our own and others', run by pytest alone: what a second runner
# could show is in the processes that it does not run.
ONCE := tests/torture/% tests/test_documentation.py
PROCESSES := $(wildcard tests/integration/test_*.py) \
	$(patsubst %,tests/test_%.py,plugin run tap) tests/protocols/test_power.py
TESTS = $(filter-out $(ONCE) $(PROCESSES),$(sort $(shell find tests -name 'test_*.py')))

# The tests start hundreds of processes: what they import is compiled once.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help install demo lint check test trial pytest processes torture bench bench-curves soak docs doctest clean

help:
	@echo 'make demo    two nodes, a careless mirror between them, a service behind the far one'
	@echo 'make check   ruff, mypy, import-linter and the tests without torture, by trial (fast)'
	@echo 'make test    all of that by pytest, with torture and the documentation'
	@echo 'make bench   latency, calls a second and throughput, beside a plain proxy and cp'
	@echo 'make bench-curves  what comes of what is written over careless carriers, simulated and drawn'
	@echo 'make soak    the torture, for hours, with all that docs/testing.rst lists; HOFT_SOAK=10 for a tenth'
	@echo 'make docs    the documentation as HTML, in docs/_build/html'
	@echo 'make clean   removes what the others made, the environment too'

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed-demo: $(PACKAGING) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[demo]'
	@touch $@

$(VENV)/installed-dev: $(PACKAGING) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/installed-demo

install: $(VENV)/installed-dev

demo: $(VENV)/installed-demo
	$(BIN)/python demo/run.py

lint: $(VENV)/installed-dev
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy $(SOURCES)
	$(BIN)/lint-imports

check: lint trial processes

# At once, since tests wait for sockets and processes as much as they work.
test: $(VENV)/installed-dev
	$(MAKE) --jobs=4 --output-sync=target torture processes pytest doctest lint docs

trial: $(VENV)/installed-dev
	$(BIN)/trial --temp-directory=build/trial $(TESTS)

pytest: $(VENV)/installed-dev
	$(BIN)/pytest $(TESTS)

processes: $(VENV)/installed-dev
	$(BIN)/pytest $(PROCESSES)

torture: $(VENV)/installed-dev
	$(BIN)/pytest tests/torture

bench: $(VENV)/installed-dev
	$(BIN)/python -m benchmarks

bench-curves: $(VENV)/installed-dev
	$(BIN)/python -m benchmarks.curves docs

# By trial, which shows at once what the tests say of their progress.
soak: $(VENV)/installed-dev
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[fuzz]'
	HOFT_SOAK=$${HOFT_SOAK:-100} $(BIN)/trial --temp-directory=build/soak tests.torture \
		tests.transports.test_folder_faults tests.transports.test_folder_links

docs: $(VENV)/installed-dev
	$(BIN)/sphinx-build -W --keep-going -q -E -b html docs docs/_build/html
	@echo 'The documentation is in docs/_build/html/index.html'

# The examples of the documentation.
doctest: $(VENV)/installed-dev
	$(BIN)/pytest tests/test_documentation.py

clean:
	rm -rf $(VENV) build dist *.egg-info docs/_build _trial_temp* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
