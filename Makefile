# Needs Python 3.11 or newer and nothing else; each target makes its own virtual environment.
#   make up ARGS="--break kafka"     make test ARGS="-k lanes"     PYTHON=python3.13 make test

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: up test slowtest check-deploy servers docs

up: $(VENV)/with-demo
	@$(BIN)/outbox up $(ARGS)

test: servers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/vulture
	$(BIN)/vulture outbox migrations tests
	$(BIN)/pytest -n auto --dist loadfile -m 'not slow' $(ARGS)

# What takes minutes where the rest takes seconds.
slowtest: servers
	$(BIN)/pytest -m slow $(ARGS)

# Builds the image, runs the whole system of deploy/ in containers, renders the chart, and installs the wheel.
# As root on Debian it installs what it needs: an engine, mmdebstrap, and Helm, which Go builds.
check-deploy: servers
	$(BIN)/python tests/support/programs.py deploy
	$(BIN)/pytest -m deploy $(ARGS)

servers: $(VENV)/with-dev
	$(BIN)/python tests/support/programs.py
	-$(BIN)/python outbox/devstack/jars.py

# Into docs/site. Nothing that a link leads to is missing, page or anchor.
docs: $(VENV)/with-docs
	$(BIN)/zensical build --clean --strict --config-file docs/mkdocs.yml

$(VENV)/with-%: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[$*]'
	@touch $@
