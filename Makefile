# `make run`: set up and run the main job.  `make test`: set up and run the tests.  `make help`: the rest.
PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export DO_NOT_TRACK := 1
export DVC_NO_ANALYTICS := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export MLFLOW_DISABLE_TELEMETRY := true
export GX_ANALYTICS_ENABLED := false
# set by some images; without compiled modules every stage would start seconds later
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup environment run test-unit test test-all lint docs gpu benchmark-setup lock image ui serve

MODEL ?= models:/digits-sigma-0.5@champion
export MODEL
# `make setup TEAM=1` adds what a team's servers need, for every later `make` too; `make setup TEAM=` takes it away
TEAM := $(wildcard .venv/.team)
LOCK := $(strip requirements/pipeline.lock $(if $(TEAM),requirements/team.lock))
# of what .venv holds, by content: a fresh clone's files look newer than any environment
LOCKS := $(shell cat $(LOCK) requirements/uv.lock | cksum)

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 18

setup:  ## the locked environment in .venv; TEAM=1: with what a team's servers need (docs/team.md)
	@test "$$(cat .venv/.installed 2>/dev/null)" = "$(LOCKS)" || $(MAKE) --no-print-directory environment

environment:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("error: Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ": name one, make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.lock
	uv pip sync --require-hashes $(LOCK)
	$(if $(TEAM),touch,rm -f) .venv/.team
	ln -sf ../../pipelines/smoothmix.sh .venv/bin/smoothmix
	@echo "$(LOCKS)" > .venv/.installed

# in the order of tests/conftest.py, the longest files first
TESTS := python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

run: setup  ## set up and run the main job: prepare, validate, train, certify, evaluate, register
	@python -m pipelines.check
	dvc repro

test-unit: setup  ## the quick tests: on each edit
	$(TESTS) -m "not slow and not medium"

test: setup  ## set up and run the fast tests, files side by side
	$(TESTS)

test-all: setup  ## every test, the slow ones too
	$(TESTS) -m "slow or not slow"

lint: setup  ## format, lint, types, Dockerfile
	ruff format --check .
	ruff check .
	mypy
	hadolint Dockerfile

docs: setup  ## build the pages in docs/ as a site, strictly: site/html/index.html
	uv pip install --quiet --require-hashes -r requirements/docs.lock
	python docs/build.py

# with the python at hand: a machine that lends a GPU has a torch of its own
gpu:  ## check this machine's GPU in minutes: gpu.json has what was found
	$(PYTHON) -m benchmarks.gpu --out $(or $(OUT),gpu.json) $(if $(DATA),--data "$(DATA)")

benchmark-setup: setup  ## what benchmarks compare with, beside the locked environment
	uv pip install --no-deps --require-hashes -r requirements/benchmark.lock

lock:  ## solve the dependencies of pyproject.toml anew
	uv pip compile requirements/uv.in --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet -o requirements/uv.lock
	uv pip compile requirements/benchmark.in --no-deps --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet -o requirements/benchmark.lock
	uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet -o requirements/pipeline.lock
	uv pip compile pyproject.toml --constraint requirements/pipeline.lock --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet -o requirements/runtime.lock
	uv pip compile --group train --constraint requirements/pipeline.lock --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet -o requirements/train.lock
	uv pip compile --group serve --constraint requirements/pipeline.lock --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet -o requirements/serve.lock
	uv pip compile pyproject.toml --extra team --constraint requirements/pipeline.lock --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet -o requirements/team.lock
	uv pip compile --group docs --constraint requirements/pipeline.lock --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet -o requirements/docs.lock

# docker's format where it is not the only one: the other drops the health check
BUILDER ?= docker
image:  ## build the images smoothmix-train, -serve and -pipeline: BUILDER=docker, podman or buildah
	@for target in train serve pipeline; do \
		set -ex; $(BUILDER) build $(if $(filter docker,$(BUILDER)),,--format docker --layers) --build-arg TORCH_INDEX="$(TORCH_INDEX)" --target $$target --tag smoothmix-$$target .; \
	done

ui: setup  ## look at the runs and the registered models: MLflow on port 5000
	mlflow ui --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///$$(python -c 'from pipelines import artifacts; print(artifacts.tracking_store())')/mlflow.db}"

serve: setup  ## serve MODEL (default: the digits champion at sigma 0.5) on port 8000 of this machine
	python -m pipelines.serve --model "$$MODEL"
