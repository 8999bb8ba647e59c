# make demo    the environment, then the demo study: runs/demo/report.html
# make test    the environment with the test extras, then every test, one process a core
# make quick   the same without the tests that are slow, need a browser or start processes: a minute or two
# make check   ruff and mypy in the same environment
# make site    the documentation as a site: build/site/index.html
#
# PYTHON names the interpreter (3.11 or newer). PIP_FLAGS is handed to pip, for example an index that has the CPU build of
# torch; PYTEST_FLAGS to pytest.

PYTHON ?= python3
PIP_FLAGS ?=
PYTEST_FLAGS ?=
VENV := .venv
BIN := $(VENV)/bin
# The tests of a file stay together, since they share what was costly to make; tests/conftest.py orders the files.
PYTEST = $(BIN)/pytest --numprocesses auto --dist loadfile --no-loadscope-reorder $(PYTEST_FLAGS)
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt $(PIP_FLAGS)

.PHONY: demo test quick check site clean

demo: $(VENV)/ready
	@$(BIN)/handscope study datasets/demo.yaml

test: $(VENV)/ready-test
	@command -v chromium chromium-browser google-chrome > /dev/null || \
	    echo "The tests of the labelling page need a Chromium and will fail without one. On Debian: apt-get install chromium" >&2
	$(PYTEST)

quick: $(VENV)/ready-test
	$(PYTEST) -m "not browser and not process and not slow"

check: $(VENV)/ready-test
	$(BIN)/ruff check .
	$(BIN)/mypy

site: $(VENV)/ready-test
	$(BIN)/mkdocs build --strict

# A stamp is written last, so that an installation which was cut off is made again.
$(VENV)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "handscope needs Python 3.11 or newer; $(PYTHON) is not. Run: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || \
	    { echo "$(PYTHON) -m venv failed. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 2; }
	@mkdir -p $(VENV)/link && ln -sfn "$(CURDIR)" $(VENV)/link/handscope
	@touch $@

$(VENV)/ready: pyproject.toml constraints.txt | $(VENV)/python
	@echo "Installing handscope into $(VENV): some minutes, once."
	@$(INSTALL) --editable .
	@touch $@

$(VENV)/ready-test: pyproject.toml constraints.txt | $(VENV)/python
	@echo "Installing handscope with what its tests need into $(VENV): some minutes, once."
	@$(INSTALL) --editable '.[test,dev]'
	@touch $@ $(VENV)/ready

clean:
	rm -rf $(VENV) build *.egg-info
