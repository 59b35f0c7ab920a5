# make demo | test | check-all | docs | bench | clean      (python3 >= 3.10 and make are all that is needed)
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
GRAPH ?= build/demo.html
# tests run side by side, each process on one core
JOBS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint check-all docs bench bench-pipeline clean

help:
	@echo "make demo       compile and train a real model, print its error, draw its error graph"
	@echo "make test       lint, types and all tests (under 10 minutes on 2 cores)"
	@echo "make check-all  the long checks too (MNIST accuracy; needs RECLRA_DATA)"
	@echo "make docs       this documentation as a site in build/site (Python >= 3.11; no network)"
	@echo "make bench      step time, predictions beside measurements, the simulator at scale"
	@echo "make bench-pipeline  rec-LRA on two processes beside PyTorch's pipeline schedules and DDP"

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "python3 >= 3.10 is needed; set PYTHON=/path/to/python3.x"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@echo "installing (torch is large; this can take a few minutes)"
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	@touch $@

demo: $(READY)
	@mkdir -p build
	$(BIN)/reclra-compile examples/mlp_digits.py --wiring wiring/depth2.yaml
	$(BIN)/reclra-compile train examples/mlp_digits.py --wiring wiring/depth2.yaml --compare backprop --threads 1 \
	  --epochs 40 --batch-size 32 --graph $(GRAPH)
	@echo "open $(CURDIR)/$(GRAPH) in a browser to see the error pathways"

lint: $(READY)
	$(BIN)/ruff check reclra_compile tests examples benchmarks docs/gen
	$(BIN)/mypy

test: lint
	$(PYTEST) -m "not slow"

check-all: lint
	$(PYTEST)

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "open $(CURDIR)/build/site/index.html in a browser"

bench: $(READY)
	$(BIN)/python benchmarks/step_time.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/step_graph.py
	$(BIN)/python benchmarks/start_up.py
	$(BIN)/python benchmarks/architectures.py
	$(BIN)/python benchmarks/perturbative.py
	$(BIN)/python benchmarks/auto.py
	$(BIN)/python benchmarks/simulate_scale.py
	$(BIN)/python benchmarks/prediction.py

bench-pipeline: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/pipeline.py

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
