# The targets:
#   make demo           make .venv, install, run the quick start and its report: figures from nothing
#   make test           all tests; with COVERAGE=1 also the share of lines that they cover, which
#                       fails below a floor
#   make test-fast      the tests that are not marked slow
#   make test-lowest    the tests of the base package with the lowest versions of its dependencies
#   make test-privacy   the tests of noise, accounting, and audits
#   make test-flower    the tests that need Flower
#   make release-check  build, install into an empty environment, run quick start, study, tutorial
#   make soak           an hour of injected faults and bad input
#   make soak-calls     every system call fails once: hours; it resumes where it was interrupted
#   make docs           the documentation site
#   make reference      docs/reference, from the schema, the commands and the docstrings
#   make lint, format   check the style and types; repair the style
#   make clean          remove environments, caches, and builds
VENV ?= .venv
FIND = for p in python3.12 python3.13 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1 && echo $$p && break; done
PYTHON ?= $(shell $(FIND))
BIN = $(VENV)/bin
# two processes share the test files, in the order of tests/conftest.py
SHARED = -n 2 --dist loadfile --no-loadscope-reorder

# what needs no extra: torch alone would be gigabytes in one more environment
BASE_TESTS = $(addprefix tests/,abm api cli game learning mechanisms population process records report \
	scenario runs/test_compare.py runs/test_run_sweep.py test_cli.py test_errors.py test_input.py \
	test_plugins.py test_registry.py test_rng.py)

.PHONY: demo test test-fast test-lowest test-privacy test-flower release-check soak \
	soak-calls docs reference lint format clean
.DEFAULT_GOAL := demo

demo: $(VENV)/.train
	$(BIN)/fcfn run scenarios/quickstart.toml --overwrite
	$(BIN)/fcfn report results/quickstart

test: $(VENV)/.dev
	$(BIN)/python -m pytest $(SHARED) $(if $(COVERAGE),--cov --cov-report=term:skip-covered)
	$(if $(COVERAGE),$(BIN)/python tests/packaging/coverage_floor.py)

test-fast: $(VENV)/.dev
	$(BIN)/python -m pytest $(SHARED) -m "not slow"

release-check: $(VENV)/.dev
	$(BIN)/python tests/packaging/release_check.py $(RELEASE)

test-lowest: $(VENV)-lowest/.made
	$(VENV)-lowest/bin/python -m pytest $(SHARED) -m "not slow" $(BASE_TESTS)

soak: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet 'atheris>=3' || true
	PYTHONPATH=tests $(BIN)/python -m soak $(SOAK)

soak-calls: $(VENV)/.dev
	@mkdir -p build
	PYTHONPATH=tests $(BIN)/python -W ignore -m soak.calls --results build/soak-calls.jsonl $(SOAK)

docs: $(VENV)/.dev
	$(BIN)/python -m sphinx --builder dirhtml --fresh-env --write-all --fail-on-warning --keep-going docs build/site

reference: $(VENV)/.dev
	$(BIN)/python docs/generate.py
	$(BIN)/fcfn odd --out docs/reference/odd.md --overwrite

test-privacy: $(VENV)/.dev
	$(BIN)/python -m pytest $(SHARED) tests/dp tests/training/test_injected_noise.py \
		tests/training/test_planted_faults.py tests/training/test_participations.py \
		tests/training/test_check_in_training.py tests/training/test_secure_training.py \
		tests/runs/test_audit_scenario.py tests/runs/test_audit_whole.py \
		tests/runs/test_free_riders.py docs/privacy.md

test-flower: $(VENV)-flower/.made
	FCFN_FLOWER_PYTHON=$(VENV)-flower/bin/python $(BIN)/python -m pytest \
		tests/examples/test_flower_plan.py

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/.train: pyproject.toml | $(VENV)/.made
	$(BIN)/python -m pip install --quiet --editable '.[train]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/.made
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/.train

$(VENV)/.made:
	@test -n "$(PYTHON)" || { echo "fcfn_abm needs Python 3.12 or newer, and none is on the PATH: \
	install one (with its venv module), or name it: make PYTHON=/path/to/python3.12" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# flwr pins many versions: an environment of its own, which has torch from ours
$(VENV)-flower/.made: $(VENV)/.dev
	$(BIN)/python -m venv $(VENV)-flower
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
		"$$($(VENV)-flower/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/ours.pth"
	$(VENV)-flower/bin/python -m pip install --quiet 'flwr[simulation]>=1.22'
	@touch $@

$(VENV)-lowest/.made: pyproject.toml
	@test -n "$(PYTHON)" || { echo "no Python 3.12 or newer is on the PATH" >&2; exit 2; }
	$(PYTHON) -m venv --clear $(VENV)-lowest
	$(VENV)-lowest/bin/python -m pip install --quiet uv
	$(VENV)-lowest/bin/uv pip install --quiet --python $(VENV)-lowest/bin/python \
		--resolution lowest-direct --editable '.[test]'
	@touch $@

clean:
	rm -rf $(VENV) $(VENV)-flower $(VENV)-lowest $(VENV)-3.13 build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis \
		.coverage*
