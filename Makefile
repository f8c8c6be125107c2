# `make test` and `make demo` work in a fresh clone: they make a virtual environment and install what they need, once.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: demo test test-fast test-thorough test-long test-dropins test-mace test-nequip lint clean docs

demo: runs/demo/metrics.json  ## train a potential on the embedded ethanol frames; see what it learned in runs/demo
	@echo "Trained: see runs/demo/parity.png, learning_curve.png and metrics.json (make clean removes runs/, .venv and the built pages)"

runs/demo/metrics.json: $(VENV)/installed
	rm -rf runs/demo
	$(RUN) -m train md17 --run_dir runs/demo --max_time 00:00:04:30

# Bytecode is kept, also where the environment says otherwise: to make that of the tests takes ten seconds a process.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(RUN) -m pytest --numprocesses 2 --dist worksteal
# Compiled kernels are kept for the next time: they are found by the code that they were made from.
export PYG_CGCONV_CACHE ?= $(CURDIR)/$(VENV)/kernels

test: lint  ## before each commit: what runs without a network, and no test marked thorough; with a GPU its tests, too
	$(PYTEST) -m "not thorough"

test-fast: $(VENV)/installed  ## for people at work: nor those marked slow, and fewer random examples
	$(PYTEST) -q -m "not slow and not thorough" --hypothesis-profile fast

test-thorough: $(VENV)/installed  ## the others; before a merge, and in continuous integration
	$(PYTEST) -m thorough

test-long: $(VENV)/installed  ## for the night: ten times as many random examples or more, others each time; large kernels
	$(RUN) -m pytest -m hypothesis --hypothesis-profile long

test-dropins: test-mace test-nequip  ## the integrations with the packages themselves, which need environments of their own

# One file after the other: NequIP and SevenNet, and what PyTorch Geometric changes, do not go together in a process.
test-mace: .venv-mace/installed
	OMP_NUM_THREADS=1 .venv-mace/bin/python -m pytest -q tests/pyg_cgconv/integrations/test_mace.py tests/pyg_cgconv/integrations/test_mace_radial.py
	OMP_NUM_THREADS=1 .venv-mace/bin/python -m pytest -q tests/pyg_cgconv/integrations/test_e3nn.py tests/pyg_cgconv/nn/test_from_e3nn.py
	OMP_NUM_THREADS=1 .venv-mace/bin/python -m pytest -q tests/pyg_cgconv/benchmark/test_models.py -k mace
	OMP_NUM_THREADS=1 .venv-mace/bin/python -m pytest -q tests/pyg_cgconv/benchmark/test_symmetric.py

test-nequip: .venv-nequip/installed
	OMP_NUM_THREADS=1 .venv-nequip/bin/python -m pytest -q tests/pyg_cgconv/integrations/test_nequip.py
	OMP_NUM_THREADS=1 .venv-nequip/bin/python -m pytest -q tests/pyg_cgconv/integrations/test_sevennet.py
	OMP_NUM_THREADS=1 .venv-nequip/bin/python -m pytest -q tests/pyg_cgconv/benchmark/test_models.py -k nequip
	OMP_NUM_THREADS=1 .venv-nequip/bin/python -m pytest -q tests/pyg_cgconv/benchmark/test_models.py -k sevennet

.venv-mace/installed: PACKAGES := ".[mace]" cuequivariance cuequivariance-torch
.venv-nequip/installed: PACKAGES := ".[nequip,sevennet]"
.venv-%/installed: pyproject.toml
	test -x .venv-$*/bin/python || $(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip install --quiet --editable $(PACKAGES) hypothesis pytest
	touch $@

lint: $(VENV)/installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(RUN) -m mypy

docs: $(VENV)/docs-installed  ## the pages, in docs/_build/html; their examples run on the CPU; warnings are errors
	$(RUN) -m sphinx -W --keep-going -q -d docs/_build/doctrees -b html docs docs/_build/html
	CUDA_VISIBLE_DEVICES= $(RUN) -m sphinx -W --keep-going -q -d docs/_build/doctrees -b doctest docs docs/_build/doctest

$(VENV)/docs-installed: $(VENV)/installed
	$(RUN) -m pip install --quiet --editable ".[docs]"
	touch $@

$(VENV)/installed: pyproject.toml
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --editable ".[test]"
	touch $@

clean:
	rm -rf $(VENV) .venv-mace .venv-nequip runs docs/_build
