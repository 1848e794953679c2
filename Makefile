# Every target sets up what it needs first (see .ci/setup).
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo test check native bench bench-quick soak asan fuzz lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## run the gateway with an embedded issuer and a demo app behind it
	@python=$$(.ci/setup demo) && exec "$$python" -m gateway demo

test: ## run all tests and name what was skipped
	@python=$$(.ci/setup test) && exec "$$python" -m pytest

check: ## lint, types, stubs and the import contract only
	@python=$$(.ci/setup test) && exec "$$python" -m pytest tests/house

native: ## compile the extensions in place (PORTCULLIS_EXT=a,b for some of them)
	@flock /tmp/portcullis-build.lock $${VIRTUAL_ENV:-.venv}/bin/python setup.py -q build_ext --inplace

bench: ## measure against the peers (half an hour; tables, and JSON in bench/results)
	@python=$$(.ci/setup bench) && exec "$$python" -m bench all

bench-quick: ## the same with short rounds, for a first look
	@python=$$(.ci/setup bench) && exec "$$python" -m bench all --quick

soak: ## ten minutes at full load with an eye on memory
	@python=$$(.ci/setup bench) && exec "$$python" -m bench soak

asan: ## the native tests under AddressSanitizer and UBSan
	@python=$$(.ci/setup test) && exec "$$python" tests/sanitize/asan.py

fuzz: ## fuzz each parser for 60 seconds
	@python=$$(.ci/setup fuzz) && exec "$$python" -m tests.fuzz.run

lock: ## resolve the dependencies anew into .ci/lock-*.txt
	@.ci/lock

clean: ## remove what was built
	@rm -rf build dist *.egg-info gateway/_native/*.so .mypy_cache .ruff_cache .pytest_cache .hypothesis
