# Orrery. `make help` lists what there is.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python
PROTOS := $(wildcard proto/orrery/v1/*.proto)
STUBS := clients/orrery/v1
CODE := clients services deploy training tests
BUF := npx --yes @bufbuild/buf@1.75.0

# In $(JOBS) processes, but for the tests that need the running platform: it takes the processor
# for itself, and is started once for all of them.
JOBS ?= 2
define run_tests
OMP_NUM_THREADS=1 $(RUN) -m pytest -m "$(1) and not integration" --numprocesses $(JOBS) --dist loadfile
$(RUN) -m pytest -m "$(1) and integration"
endef

.DEFAULT_GOAL := help
.PHONY: help setup proto fmt lint type test test-all test-vllm up down demo bench bench-retrieval bench-images bench-moe train-demo eval-demo eval-images eval-rag monitor monitor-pictures load soak generated check lock clean

help: ## This list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- setting up ---------------------------------------------------------------------------------

setup: $(VENV)/.installed ## Make the virtual environment and install everything, pinned

# torch comes first and by its exact version: anything that depends on it could bring another build.
$(VENV)/.installed: requirements/dev.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 13) else "Orrery needs Python 3.11 or 3.12: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet --requirement requirements/dev.txt
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# The build tag of this machine's torch and the project itself are no pins for another machine.
lock: setup ## Pin every extra again, from pyproject.toml
	for name in base serve gpu train dev; do \
		extra=$$([ $$name = base ] || echo --extra $$name); \
		$(BIN)/pip-compile --quiet --allow-unsafe --strip-extras --no-annotate --no-header --no-emit-index-url \
			--no-emit-find-links $$extra --output-file requirements/$$name.txt pyproject.toml || exit 1; \
		sed -i -e 's/^\(torch==[0-9.]*\)+.*/\1/' -e '/^orrery @/d' requirements/$$name.txt; \
	done

# --- the code -----------------------------------------------------------------------------------

proto: setup ## Generate the Python stubs from the contract
	$(RUN) -m grpc_tools.protoc -Iproto --python_out=clients --pyi_out=clients --grpc_python_out=clients $(PROTOS)

generated: setup ## Write again what has its source elsewhere: dashboards, docs/metrics.md, manifests
	$(RUN) -m deploy.metrics_catalogue
	$(RUN) -m deploy.grafana_dashboards
	$(RUN) -m deploy.kubernetes

fmt: setup ## Format the code
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix --quiet $(CODE)

lint: setup ## Style, who imports whom, the contract, stubs that are fresh
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check --quiet $(CODE)
	$(BIN)/lint-imports
	cd proto && $(BUF) lint
	$(RUN) -m tests.fresh_stubs

type: setup ## mypy, strict
	$(BIN)/mypy

test: setup ## The fast tests, the running platform's included
	$(call run_tests,not slow and not gpu and not vllm)

test-all: setup ## Every test that this machine can run, the slow ones included
	$(call run_tests,not gpu and not vllm)

test-vllm: setup ## The vLLM backend against vLLM's CPU build, in an environment of its own
	sh tests/integration/vllm_environment.sh .venv-vllm
	.venv-vllm/bin/python -m pytest -m vllm -W default tests/integration/test_vllm_backend.py

check: lint type test ## What has to hold before a change lands

# --- the platform -------------------------------------------------------------------------------

up: setup ## Start the platform in the background and wait until it is ready
	@$(RUN) -m deploy.local up

down: setup ## Stop it; no process is left
	@$(RUN) -m deploy.local down

demo: up ## Start it and take a guided tour; leaves it running
	@$(RUN) -m deploy.demo

monitor: up ## Watch it with a Prometheus on this machine, alerts included, until Ctrl-C
	@$(RUN) -m deploy.monitor $(if $(PROMETHEUS),--binary $(PROMETHEUS))

monitor-pictures: setup ## Draw the dashboards from what that Prometheus has seen in the last ten minutes
	@$(RUN) -m deploy.grafana_pictures

load: up ## Measure its capacity, then ask for 0.8 and 4 times as much, and judge
	@$(RUN) -m tests.load overload

soak: up ## Ten minutes of everything, and whether memory and open files stay as they are
	@$(RUN) -m tests.load soak

bench: setup ## Our engine beside Hugging Face, and what the platform adds on top
	$(RUN) -m tests.bench.engine
	$(RUN) -m tests.bench.platform

bench-retrieval: setup ## Search and embedding beside plain FAISS and sentence-transformers
	$(RUN) -m tests.bench.embedding
	$(RUN) -m tests.bench.retrieval

bench-images: setup ## Pictures, and CLIP, beside diffusers and transformers
	$(RUN) -m tests.bench.images
	$(RUN) -m tests.bench.clip

bench-moe: setup ## Sparse layers beside dense ones and transformers', and experts behind a service
	$(RUN) -m tests.bench.moe
	$(RUN) -m tests.bench.moe_service

# --- the demo models ----------------------------------------------------------------------------

train-demo: setup ## Train the demo models from scratch; resumes where it was stopped
	$(RUN) -m training.train --model llama
	$(RUN) -m training.train --model gpt
	$(RUN) -m training.train --model moe
	$(RUN) -m training.images.clip_training
	$(RUN) -m training.images.diffusion

eval-demo: setup ## How well the demo models answer from context
	$(RUN) -m training.eval_demo

eval-images: setup ## How well the demo models see and draw what a caption says
	$(RUN) -m training.images.eval_images

eval-rag: up ## How well the running platform answers from the demo documents, and without them
	@$(RUN) -m deploy.eval_rag

clean: ## Remove the environment and what was generated
	rm -rf $(VENV) .venv-vllm .mypy_cache .ruff_cache .pytest_cache .hypothesis
