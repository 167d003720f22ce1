# `make train` and `make test` set up a fresh machine by themselves; a second call starts at once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

.PHONY: setup train test test-slow gpu check lock clean

train: setup
	$(BIN)/python train.py

test: setup
	$(BIN)/python -m pytest

test-slow: setup
	$(BIN)/python -m pytest -m slow

# Half an hour on one GPU, into benchmarks/results/gpu.md; on a machine without one it says so.
gpu: setup
	$(BIN)/python benchmarks/gpu.py

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_architecture.py

setup: $(READY)

# uv installs in half a minute what takes pip several; every file's hash is checked.
$(READY): requirements.lock requirements-uv.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || \
		{ echo "Tutelage needs Python 3.11, 3.12 or 3.13: make PYTHON=python3.12 …"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	touch $@

# After a change of dependencies: pinned, hashed, for every platform and Python, without any index's address.
lock: setup
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--no-annotate --extra export --extra launchers --extra postgres --extra mysql --extra web --extra benchmarks --extra dev \
		pyproject.toml -o requirements.lock

clean:
	rm -rf $(VENV)
