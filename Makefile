# `make study` and `make test` are all that a fresh machine needs; `make help` lists the rest.

PYTHON := $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: study test bench lint lock readme clean help

study: .venv/study  ## install, and run the default study
	python -m emergent_misalignment.study --cores

test: .venv/test  ## install, and run the tests
	python -m pytest $(PYTEST)

bench: .venv/test  ## how fast this machine is
	python tests/bench.py

lint: .venv/test  ## what a reviewer would see at once
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile rules

lock:  ## remake requirements.lock from pyproject.toml, in a fresh environment
	rm -rf .venv-lock
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install --editable '.[test,cluster]'
	{ echo '# Made by `make lock`; pip takes it as constraints.'; .venv-lock/bin/pip freeze --exclude-editable | sed 's/+[a-z0-9.]*$$//'; } > requirements.lock
	rm -rf .venv-lock

readme:  ## take the README's figure from the last run of the default study
	mkdir -p figures/README
	cp figures/organism/main_result.png figures/README/

clean:  ## remove everything computed: data, figures, logs, benchmarks, Snakemake's notes
	rm -rf data figures/organism figures/smoke figures/development figures/published logs benchmarks .snakemake report.html report.zip

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "%-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' \
		|| { echo "The study needs Python 3.11, and $(PYTHON) is another version; install it, or say make PYTHON=/path/to/python3.11."; exit 1; }
	$(PYTHON) -m venv .venv

# One call of pip for all: a second one may undo what the first one settled.
.venv/study: .venv/bin/python pyproject.toml requirements.lock
	$(BIN)/pip install --quiet --constraint requirements.lock --editable .
	touch $@

.venv/test: .venv/bin/python pyproject.toml requirements.lock
	$(BIN)/pip install --quiet --constraint requirements.lock --editable '.[test,cluster]'
	touch $@ .venv/study
