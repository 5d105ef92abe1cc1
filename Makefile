# Each target sets itself up: a virtual environment with pinned versions, made once.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
DEMO_ARGS ?=
TEST_ARGS ?=
WORKERS ?= 3
SEEDS ?= 10000
JOBS ?= 2
SOAK_ARGS ?=

.PHONY: help setup demo test coverage test-tools check bench soak clean

help:
	@echo "make demo   four hospitals learn together, checked end to end (DEMO_ARGS='--json demo.json')"
	@echo "make test   every test (TEST_ARGS='-k name' narrows it); make coverage the same, traced"
	@echo "make test-tools  (Debian, root) other people's tools that some tests hold our evidence against"
	@echo "make check  ruff, mypy --strict, import contracts"
	@echo "make bench  benchmarks, each against its limit"
	@echo "make soak   10,000 simulated swarms with faults, resumable (SEEDS=… JOBS=…)"
	@echo "make setup  only the environment; make clean removes it and what was built"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP)
	@$(BIN)/swarm-scenario run four-hospitals $(DEMO_ARGS)

test: $(STAMP)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup $(TEST_ARGS)

# Tracing every branch takes about as long again.
coverage: $(STAMP)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup --cov --cov-report=term $(TEST_ARGS)

test-tools:
	apt-get update -qq
	apt-get install -y -qq --no-install-recommends golang-go openssl strace

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)
	@for script in benchmarks/bench_*.py; do $(BIN)/python $$script || exit 1; done

# Goes on where it was interrupted; remove the log to begin again.
soak: $(STAMP)
	@mkdir -p runs
	$(BIN)/swarm-scenario simulate --seeds $(SEEDS) --jobs $(JOBS) --log runs/soak.log $(SOAK_ARGS)

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .coverage runs
