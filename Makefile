# `make demo` shows the whole path; `make test` proves it. Both install what they need into .venv.
PYTHON ?= python3
BIN := .venv/bin

# Wherever it is set: each of the many processes that tests start would else compile our modules anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test lint install lock wheel bench kills fuzz clean help

help: ## Say what can be made
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: .venv/.installed ## Import, send, opt out and report, all on this machine
	@$(BIN)/tocsin demo

test: .venv/.developed .venv/tools/.installed ## Run every test
	$(BIN)/pytest -n 3 --dist worksteal $(TESTS)

lint: .venv/.developed ## Style, types and the layers of the house
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy bench
	$(BIN)/lint-imports --no-cache

install: .venv/.installed ## Install the `tocsin` command into .venv

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: Tocsin needs Python 3.11 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@$(PYTHON) -m venv .venv || \
		{ rm -rf .venv; echo "error: this Python has no venv: apt-get install python3-venv"; exit 3; }

# Hashes are required: what is installed is what was locked. Nothing is built from unpinned parts.
.venv/.installed: .venv/bin/python requirements.lock pyproject.toml
	@echo "Installing into .venv (once; about half a minute)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

.venv/.developed: .venv/.installed requirements-dev.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

# What the tests hold mails and pages against (axe-core, the Nu validator, another MIME parser): never shipped.
.venv/tools/.installed: tests/tools/package.json tests/tools/package-lock.json tests/tools/npm.txt .venv/bin/python
	@command -v npm >/dev/null || \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r tests/tools/npm.txt
	@mkdir -p $(@D) && cp tests/tools/*.json $(@D)
	@PATH="$$PATH:$(CURDIR)/$(BIN)" npm ci --prefix $(@D) --silent --ignore-scripts --no-audit --no-fund
	@touch $@

LOCK := .venv-lock/bin/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 \
	--generate-hashes --no-header

lock: ## Choose and pin the newest fitting versions
	$(PYTHON) -m venv .venv-lock && .venv-lock/bin/pip install --quiet uv
	$(LOCK) --upgrade --group build -o requirements.lock
	$(LOCK) --upgrade --group dev -c requirements.lock -o requirements-dev.lock
	cd bench && ../.venv-lock/bin/uv pip compile requirements-postoffice.in --quiet --universal \
		--python-version 3.11 --generate-hashes --no-header --upgrade -o requirements-postoffice.txt

	cd bench && ../.venv-lock/bin/uv pip compile requirements-fuzz.in --quiet --universal \
		--python-version 3.11 --generate-hashes --no-header -o requirements-fuzz.txt
	cd tests/tools && ../../.venv-lock/bin/uv pip compile npm.in --quiet --universal \
		--python-version 3.11 --generate-hashes --no-header --upgrade -o npm.txt

wheel: .venv/.installed ## Build the wheel into dist/
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation -w dist .

# One of those that we are held against wants a Python of its own: nothing of it enters ours.
.venv-bench/.installed: bench/requirements-postoffice.txt .venv/bin/python
	@$(PYTHON) -m venv .venv-bench
	@.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

bench: .venv/.developed .venv-bench/.installed ## Measure, side by side (six minutes; keep the machine quiet)
	$(BIN)/python bench/dispatch.py --json bench/results/dispatch.json \
		--plot docs/images/dispatch.svg --page docs/performance.md

kills: .venv/.developed ## Kill everything a hundred times in mid-campaign, and count
	$(BIN)/python bench/kills.py
	$(BIN)/python bench/kills.py --database postgresql

.venv/.fuzzing: .venv/.developed bench/requirements-fuzz.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r bench/requirements-fuzz.txt
	@touch $@

fuzz: .venv/.fuzzing ## Feed every reader of strangers' input 100,000 inputs (ten minutes)
	$(BIN)/python bench/fuzz.py

clean: ## Remove what was built; lists, keys and var/ stay
	rm -rf .venv .venv-lock .venv-bench dist build
