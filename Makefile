.DEFAULT_GOAL := help
.PHONY: demo test coverage soak test-gpu test-minimum test-reading lint package notebooks docs bench clean help

BIN := .venv/bin

# Threads that wait for each other yield: on a machine that others use too, spinning costs many times the work.
export OMP_WAIT_POLICY := passive

# numpy's BLAS spins while it waits, whatever the line above says; its products here are small.
demo: export OPENBLAS_NUM_THREADS := 1
demo: .venv/.installed  ## fit the example, or DATA=file.nc VAR=name OPTIONS="gaps=mask", and write figures and an archive to demo-output/
	$(BIN)/python -m xmrcae demo --output demo-output $(if $(DATA),--data "$(DATA)") $(if $(VAR),--variable "$(VAR)") \
		$(if $(OPTIONS),--options $(OPTIONS))

test: lint  ## lint, then run all tests
	$(BIN)/python -m pytest -n 2 --dist worksteal

coverage: .venv/.installed  ## run all tests, and list the lines of the package that none reaches
	$(BIN)/python -m pytest -n 2 --dist worksteal --cov=xmrcae --cov-fail-under=90

soak: .venv/.installed  ## run the tests that do at random many times what others do a few, for four hours at most
	timeout 4h $(BIN)/python -m pytest -n 2 --dist worksteal -m soak tests

# All that fits, or computes with a network. In .venv, where other targets run, torch has no CUDA.
GPU := kernels graphs gpu streams backend samples layers network network_arrays projection losses evaluation stage training \
	training_set recipes compression start model model_file checkpoint codes_files codes_labels \
	cluster land gaps order numerics extremes properties archive_append archive_decoder \
	archive_object archive_plan archive_reader archive_writer

test-gpu: export XMRCAE_TEST_GPU := 1
test-gpu:  ## test what a GPU computes, with PYTHON=python3 and its torch; without a GPU, on the CPU
	$(or $(PYTHON),python3) -m pytest -q -o addopts= -p no:cacheprovider -n 8 --dist worksteal \
		-m "not slow and not soak" $(GPU:%=tests/test_%.py)

test-minimum: .venv-minimum/.installed  ## run tests with the oldest versions that the package admits
	.venv-minimum/bin/python -m pytest -q -n 2 --dist worksteal -m "minimum and not slow and not soak" tests --ignore=tests/benchmarks

test-reading: .venv/.installed .venv-reading/.installed  ## read archives with the oldest packages, and no others installed
	$(BIN)/python .ci/reading.py .venv-reading

package: .venv/.installed  ## build sdist and wheel into dist/, and use each in an empty environment
	$(BIN)/python .ci/package.py dist

lint: .venv/.installed  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy xmrcae

notebooks: .venv/.installed  ## run all notebooks and keep what they give, or FAST=1 for short runs that change nothing
	$(if $(FAST),XMRCAE_FAST=1) $(BIN)/python notebooks/run.py

docs: .venv/.installed  ## build the documentation, without a network, in docs/_build/html; any warning is an error
	$(BIN)/python -m sphinx -q -n -W --keep-going -b html docs docs/_build/html

bench: $(if $(PYTHON),,.venv/.installed)
bench:  ## measure everything, or SECTION=name, or QUICK=1, and write docs/benchmarks.md
	$(or $(PYTHON),$(BIN)/python) tests/benchmarks $(SECTION) $(if $(QUICK),--quick)

clean:  ## remove what the other targets wrote, but no environment
	rm -rf docs/_build docs/api docs/notebooks demo-output build dist htmlcov .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -path './.venv*' -prune -o -name __pycache__ -type d -exec rm -rf {} +

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-14s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

FIND_PYTHON := python=python3; python3.11 -c '' 2>/dev/null && python=python3.11;

# One pip call for everything: a second one could bring another torch than the pinned one.
.venv/.installed: pyproject.toml .ci/constraints.txt
	@test -x $(BIN)/pip || { $(FIND_PYTHON) $$python -m venv .venv; }
	$(BIN)/python -m pip install -q --disable-pip-version-check -c .ci/constraints.txt -e '.[test]'
	@touch $@

.venv-minimum/.installed: pyproject.toml .ci/minimum.txt
	@test -x .venv-minimum/bin/pip || { $(FIND_PYTHON) $$python -m venv .venv-minimum; }
	.venv-minimum/bin/python -m pip install -q --disable-pip-version-check -r .ci/minimum.txt -e .
	@touch $@

# The folder holds what an archive is written with by the oldest packages that are admitted.
.venv-reading/.installed: pyproject.toml .ci/reading.txt
	@test -x .venv-reading/bin/pip || { $(FIND_PYTHON) $$python -m venv .venv-reading; }
	.venv-reading/bin/python -m pip install -q --disable-pip-version-check -r .ci/reading.txt
	.venv-reading/bin/python -m pip install -q --disable-pip-version-check --no-deps -e .
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --upgrade --target .venv-reading/codecs \
		$$(grep -E '^(numcodecs|pcodec|zarr)==' .ci/reading.txt)
	@touch $@
