# `make help` lists what there is. Everything lands in .venv/ and var/; downloads are kept in the user's cache folder.
SHELL := /bin/sh
BOOT := $(shell command -v "$(PYTHON)" || command -v python3 || command -v python3.11 || command -v python3.12 || command -v python3.13)
# PostgreSQL, Airflow and Spark refuse a uid without a name (a container's, say): there all runs as nobody to itself.
NOBODY := unshare --user --map-user=65534 --map-group=65534
NAMED := $(shell id -un >/dev/null 2>&1 || { $(NOBODY) true 2>/dev/null && echo $(NOBODY); })
WEIR := $(NAMED) .venv/bin/weir
.DEFAULT_GOAL := help
export CLOCK_OF_WEIR := $(shell date +%s.%N)
.PHONY: help env setup demo up down restart status logs clean generate check test test-all chaos bench-alerts bench-latency bench-etl bench-backtest bench-gateway peers lock lock-native

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | expand -t14

env: ## Make .venv from the locked requirements
	@test -n "$(BOOT)" || { echo "weir: no python3 found; install Python 3.11, 3.12 or 3.13" >&2; exit 1; }
	@"$(BOOT)" stack/bootstrap.py $(BOOTFLAGS)

setup: env ## Environment, native parts, secrets, configuration; starts nothing
	@$(WEIR) setup

demo up: BOOTFLAGS = --ports
demo: setup ## The whole path once, from simulated devices to validated tables
	@$(WEIR) demo

up: setup ## Start the stack
	@$(WEIR) up $(S)

down: ## Stop the stack; data stays
	@$(WEIR) down

restart: ## Restart one program: make restart S=bridge
	@$(WEIR) restart $(S)

status: ## What runs, where, with how much memory
	@$(WEIR) status

logs: ## A program's log: make logs S=bridge
	@$(WEIR) logs $(S)

clean: ## Stop and delete data, secrets, native parts and .venv; the download cache stays
	@if [ -x .venv/bin/weir ]; then $(WEIR) clean --yes; else rm -rf var; fi
	@rm -rf .venv var/prefix var/prefix.lock; rmdir var 2>/dev/null || true

generate: env ## Write what is derived from the specs
	@$(WEIR) generate

check: env ## The gate: lint, types, import directions, generated files fresh, rule tests
	@.venv/bin/ruff check .
	@.venv/bin/ruff format -q --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports
	@$(WEIR) generate --check
	@$(WEIR) rules test tests/rules

test: setup ## All tests but the slow ones; they start servers of their own
	@$(NAMED) .venv/bin/python -m tests -m "not slow"

test-all: setup ## All tests
	@$(NAMED) .venv/bin/python -m tests

KILLS ?= 300
SEED ?= 1
chaos: setup ## The alert service killed KILLS times; what it said is compared with the rules run over the same log
	@$(NAMED) .venv/bin/python -m tests.chaos.run --kills $(KILLS) --seed $(SEED)

bench-latency: setup ## From a publish to the webhook: how long an alert takes, beside Spark Structured Streaming
	@.venv/bin/python benchmarks/latency.py

bench-alerts: setup peers ## Readings a second through the alert rules, beside Quix Streams, Bytewax and a plain loop
	@.venv/bin/python benchmarks/alerts.py

bench-etl: setup peers ## Landed readings to validated rollups, beside DuckDB and Polars; loading, beside a bare COPY
	@.venv/bin/python benchmarks/etl.py

bench-backtest: setup ## A long backtest in Spark tasks, beside a pool of processes and one process
	@.venv/bin/python benchmarks/backtest.py

bench-gateway: setup ## Readings a second by HTTP and CoAP, none lost, beside endpoints that check nothing
	@.venv/bin/python benchmarks/gateway.py

peers: env
	@.venv/bin/uv venv -q --allow-existing var/bench-peers
	@.venv/bin/uv pip install -q --python var/bench-peers -r benchmarks/peers/requirements.txt

lock: ## Lock the Python packages anew, one file per Python version
	@for v in 3.11 3.12 3.13; do .venv/bin/uv pip compile -q requirements/weir.in --python-version $$v --generate-hashes \
	  --no-emit-index-url --no-header --no-annotate -o requirements/py$$(echo $$v | tr -d .).txt || exit 1; done

lock-native: ## Pin Debian packages and jars anew
	@.venv/bin/python -m stack.lock_native
