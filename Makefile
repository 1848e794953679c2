PY ?= python
.PHONY: native
native: ## compile the extensions in place (PORTCULLIS_EXT=a,b for some of them)
	@flock /tmp/portcullis-build.lock $(PY) setup.py -q build_ext --inplace
