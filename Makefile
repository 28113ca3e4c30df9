# Needs python (3.11 or later) and make; everything else comes from the lock, checked against its hashes.
#
#   make demo    three devices on this machine, from nothing to a synced vault, in about a minute
#   make test    style, types, layers and the whole test suite
#   make bench   the speed table, beside baselines taken in the same run
#   make soak    the long counts: hundreds of kill -9 rounds, large properties
#   make lint    style, types and layers only
#   make lock    resolve the dependencies anew (needs uv)
#   make clean   remove what these targets made

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
LOCK   := requirements-dev.lock
STAMP  := $(VENV)/.installed-from-lock

.PHONY: demo test bench soak lint format lock clean venv

demo: venv
	@$(BIN)/python tests/demo/demo.py

# Most tests wait for a clock, a disk or each other, so four run at once; whole daemons on one LAN run one by one. The
# hash seed is one for all, for the workers must find the same tests. What fails beside three others, whose patience is
# measured in seconds, must pass alone: it is named, and run once more.
REST := --ignore tests/e2e
test: lint iproute2
	PYTHONHASHSEED=0 $(BIN)/python -m pytest -q -n 4 --dist loadfile $(REST) $(ARGS) \
	  || $(BIN)/python -m pytest -q --last-failed --last-failed-no-failures none $(REST) $(ARGS)
	$(BIN)/python -m pytest -q tests/e2e $(ARGS) \
	  || $(BIN)/python -m pytest -q --last-failed --last-failed-no-failures none tests/e2e $(ARGS)

bench: venv iproute2
	PYTHONPATH=tests $(BIN)/python -m bench $(ARGS)

soak: venv iproute2
	PYTHONPATH=tests $(BIN)/python -m soak $(ARGS)

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict
	$(BIN)/lint-imports

format: venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

venv: $(STAMP)

# Made again when the lock or the project's own description changes. Where bytecode is not written on import
# (PYTHONDONTWRITEBYTECODE), the programs would be compiled at every start: hence compileall.
$(STAMP): $(LOCK) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "meshd needs Python 3.11 or later, but $(PYTHON) is $$($(PYTHON) --version 2>&1)."; \
	  echo "Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { \
	  rm -rf $(VENV); echo "$(PYTHON) can't make a virtual environment; on Debian: apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(LOCK)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	$(BIN)/python -m compileall -q meshd meshctl
	@touch $@

# Tests with network namespaces need `ip`. Without it they are skipped, and say so.
.PHONY: iproute2
iproute2:
	@if command -v ip >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "installing iproute2 for the tests with network namespaces"; \
	  { apt-get update -qq && apt-get install -y -qq --no-install-recommends iproute2; } >/dev/null \
	    || echo "iproute2 could not be installed: tests with network namespaces are skipped"; \
	else echo "no \`ip\` here (iproute2): tests with network namespaces are skipped"; fi

# One lock for running, one for working on it; neither names an address, so any index or mirror will do.
COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
           --no-annotate --no-emit-index-url --no-emit-find-links
lock:
	@command -v uv >/dev/null || { echo "make lock needs uv"; exit 1; }
	$(COMPILE) $(ARGS) pyproject.toml --output-file requirements.lock
	$(COMPILE) $(ARGS) --extra dev --constraint requirements.lock pyproject.toml --output-file requirements-dev.lock
	@! grep -n '://' requirements.lock requirements-dev.lock

clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage *.egg-info
	find meshd meshctl tests -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -rf $(VENV)
