# The README's commands. Everything happens in .venv; delete it to begin anew.
PYTHON ?= python3
BIN := .venv/bin

train: $(BIN)/windvane      ## table -> deployed champion
	$(BIN)/windvane train

quick: $(BIN)/windvane      ## unit tests: pure code, no servers and no child processes; under a minute
	$(BIN)/pytest -m "not slow and not long"

test: $(BIN)/windvane       ## tests of the parts, against real databases and files; minutes
	$(BIN)/pytest -m "not slow"

slow: $(BIN)/windvane       ## tests of the whole: laps, servers, browser, kills, the wheel
	$(BIN)/pytest -m "slow and not trial"

trials: $(BIN)/windvane     ## the slow tests of which only a part runs in `make slow`
	$(BIN)/pytest -m trial

coverage: $(BIN)/windvane   ## which lines of the product `make test` runs, child processes too
	mkdir -p build/coverage
	$(BIN)/pytest -m "not slow" --cov --cov-report=term

check: $(BIN)/windvane      ## lint, types, import contracts
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

$(BIN)/windvane: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	touch $@

.PHONY: train quick test slow trials coverage check
