# Everything a person types. `make demo` and `make test` work on a clean clone.
PYTHON ?= python3
# Extra arguments for installing torch, e.g. TORCH_FLAGS="--index-url <PyTorch's CPU index>"
# where the default index serves a build with CUDA.
TORCH_FLAGS ?=
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: setup demo test faults cover check lock clean

setup: $(INSTALLED)

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/it"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing into .venv (about 2 GB, once) ..."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH_FLAGS) torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: setup
	$(BIN)/groundtruth demo

test: setup
	$(BIN)/python -m pytest -n 2 --dist worksteal

# Sites and a coordinator as real processes over TLS, and what may happen to them: about 15 minutes.
faults: setup
	$(BIN)/python -m pytest -m deployment tests/test_deployment.py

# What privacy rests on is tested branch by branch; a line that no test reaches fails.
PROVEN := models/clipping.py,models/mechanisms.py,models/discrete_gaussian.py,models/keystream.py,$\
models/accounting.py,models/patients.py,federation/ledger*.py,federation/secure_sum.py,$\
federation/roster.py,federation/identity.py,federation/run_state.py,federation/plan.py,$\
federation/promise.py,federation/site.py,federation/exchange.py,federation/participants.py,$\
federation/checkpoint.py,federation/strategy.py
PROVING := $(addprefix tests/test_,clipping.py mechanisms.py discrete_gaussian.py keystream.py \
accounting.py patients.py ledger.py ledger_crashes.py secure_sum.py identity.py run_state.py \
settings.py site.py strategy.py exchange.py resume.py readmission.py rivals.py neural_run.py)

cover: setup
	$(BIN)/python -m pytest -n 2 --dist worksteal --cov --cov-report= $(PROVING)
	$(BIN)/coverage report --include="$(PROVEN)" --show-missing --fail-under=100

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pip check
	@cp requirements.lock .venv/requirements.lock
	$(BIN)/uv pip compile $(LOCK_FLAGS) --output-file .venv/requirements.lock
	@diff -u requirements.lock .venv/requirements.lock \
		|| { echo "requirements.lock does not fit pyproject.toml: run 'make lock'"; exit 1; }

LOCK_FLAGS := pyproject.toml --all-extras --universal --generate-hashes --no-header --quiet

lock:
	$(BIN)/uv pip compile $(LOCK_FLAGS) --output-file requirements.lock

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis
