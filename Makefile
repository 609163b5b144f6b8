# `make demo` and `make test` do all the set-up they need.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python -m
READY := $(VENV)/.ready

.PHONY: demo test lint bench clean

demo: $(READY)  ## train every optimizer on handwritten digits, with a table and a plot
	$(VENV)/bin/neon compare

test: $(READY)  ## run all tests
	$(RUN) pytest -n 2 --dist worksteal -q

lint: $(READY)  ## style and types
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) pyright

bench: $(READY)  ## measure speed beside torch.optim and the limit of memory, about a quarter of an hour
	$(VENV)/bin/neon bench

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(RUN) pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) neon-compare
