# `make demo` and `make test` do all the set-up they need.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python -m
READY := $(VENV)/.ready

# The heart: rules against float64, backends against eager, attach, checkpoints, kernels; a minute on two cores.
QUICK := rules exactness storage kernels random_rules attach attached_tensors optimize checkpoints refused_checkpoints \
	multioptimizer torch_equality files pairs promises

.PHONY: demo quick test test-all lint bench clean

demo: $(READY)  ## train every optimizer on handwritten digits, with a table and a plot
	$(VENV)/bin/neon compare

quick: $(READY)  ## run the heart of the tests, in a minute
	$(RUN) pytest -n 2 --dist worksteal -q --random-rules=20 $(QUICK:%=tests/test_%.py)

test: $(READY)  ## run all tests, crossings of features pair by pair
	$(RUN) pytest -n 2 --dist worksteal -q

test-all: $(READY)  ## run all tests, crossings of features in full
	$(RUN) pytest -n 2 --dist worksteal -q --all

lint: $(READY)  ## style and types
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) pyright

bench: $(READY)  ## measure speed beside torch.optim and the limit of memory, about half an hour
	$(VENV)/bin/neon bench

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(RUN) pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) neon-compare
