# `make test` and `make demo` work in a fresh clone: they make a virtual environment and install what they need, once.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: demo test lint clean

demo: $(VENV)/installed  ## train a potential on the embedded ethanol frames and show what it learned
	$(RUN) -m train md17 --run_dir runs/demo --max_time 00:00:04:30

test: lint  ## everything that runs without a network; tests that need a GPU run if there is one
	$(RUN) -m pytest

lint: $(VENV)/installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

$(VENV)/installed: pyproject.toml
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --editable ".[test]"
	touch $@

clean:
	rm -rf $(VENV) runs
