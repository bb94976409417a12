# Two commands are enough:  make demo   and   make test.  Each makes the environment that it needs.

PYTHON ?= python3
VENV ?= .venv
# torch is installed first and from here, since PyPI's Linux build carries several GB of CUDA. Empty: from pip's usual index.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
TORCH ?= torch>=2.13 torchvision>=0.28
# Three on two cores: much of the time is spent waiting for other processes.
PYTEST ?= -n 3 --dist loadgroup

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

BIN := $(abspath $(VENV))/bin
STAMP := $(abspath $(VENV))/fourview-installed

# The stamp of another checkout is none: the environment runs that one's code.
ifneq ($(shell cat $(STAMP) 2>/dev/null),$(CURDIR))
.PHONY: $(STAMP)
endif

.PHONY: help
help: ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | while IFS=$$'\t' read -r name text; do printf '  make %-12s %s\n' "$$name" "$$text"; done
	@echo
	@echo '  PYTHON=python3.12      another Python (3.11 or later) for the new environment'
	@echo '  VENV=/path/to/venv     an environment that exists already'
	@echo '  TORCH_INDEX=URL        where torch comes from (now: $(or $(TORCH_INDEX),the usual index of pip))'

.PHONY: demo
demo: $(STAMP) ## two real exams through Orthanc and Fourview; keeps its data in .demo/
	$(BIN)/fourview demo

.PHONY: test
test: $(STAMP) lint ## lint, types, and all tests
	PATH=/usr/bin:/usr/sbin:$$PATH:$(BIN) $(BIN)/python -m pytest $(PYTEST)

.PHONY: lint
lint: $(STAMP) ## ruff, mypy, and bandit on what is shipped
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive listener pipeline store

.PHONY: lock
lock: $(STAMP) ## write anew which versions and hashes are shipped (deploy/*.lock): the newest that pyproject.toml allows
	$(BIN)/uv pip compile $(LOCKED) --upgrade pyproject.toml --output-file deploy/requirements.lock
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' | \
	  $(BIN)/uv pip compile $(LOCKED) --upgrade - --output-file deploy/build.lock
	$(BIN)/python -m tests.shipped > deploy/licences.md

LOCKED := --quiet --universal --python-version 3.11 --generate-hashes --custom-compile-command 'make lock'

.PHONY: sbom
sbom: $(STAMP) ## the bill of materials of what is shipped, from the lock (CycloneDX): dist/fourview.cdx.json
	@mkdir -p dist
	$(BIN)/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible --output-file dist/fourview.cdx.json deploy/requirements.lock

.PHONY: format
format: $(STAMP) ## let ruff write the code as it likes it
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: environment
environment: $(STAMP) ## only the Python environment

# QUICK=1: two minutes. JSON=file: where the run is written as JSON.
QUICK ?=
JSON ?=

.PHONY: bench
bench: $(STAMP) ## every figure beside its rival, in twelve minutes: QUICK=1 in three, JSON=FILE as JSON too (needs Orthanc, dcmtk)
	PATH=/usr/bin:/usr/sbin:$$PATH:$(BIN) $(BIN)/python benchmarks/bench.py $(if $(QUICK),--quick) $(if $(JSON),--json $(JSON))

.PHONY: bench-more
bench-more: $(STAMP) ## what takes longer: views, grouping, other rules on 10,000 studies, searches over a million results, listings of a million studies
	$(BIN)/python benchmarks/view_resolution.py
	$(BIN)/python benchmarks/grouping_day.py
	$(BIN)/python benchmarks/look_cost.py
	$(BIN)/python benchmarks/rules_diff.py
	PATH=/usr/bin:/usr/sbin:$$PATH:$(BIN) $(BIN)/python benchmarks/dicomweb_search.py
	PATH=/usr/bin:/usr/sbin:$$PATH:$(BIN) $(BIN)/python benchmarks/listing.py

ROUNDS ?= 200
DATABASE ?= sqlite

.PHONY: torture
torture: $(STAMP) ## kill -9 of every process, ROUNDS=200 times on DATABASE=sqlite|postgresql, and count (needs Orthanc, dcmtk)
	PATH=/usr/bin:/usr/sbin:$$PATH:$(BIN) $(BIN)/python benchmarks/torture.py --rounds $(ROUNDS) --database $(DATABASE)
	FOURVIEW_EVERY_STATEMENT=1 $(BIN)/python -m pytest -q tests/test_interleavings.py

MINUTES ?= 10
.PHONY: hostile
hostile: $(STAMP) ## hostile, rude and normal senders at once for MINUTES=10, and count what was promised (needs Orthanc, dcmtk)
	PATH=/usr/bin:/usr/sbin:$$PATH:$(BIN) $(BIN)/python benchmarks/mixed_torture.py --minutes $(MINUTES)

.PHONY: soak
soak: $(STAMP) ## 10,000 associations and 10,000 bare TCP connects: memory, threads and files of the receiver
	$(BIN)/python benchmarks/soak.py

FUZZ_SECONDS ?= 600

.PHONY: fuzz
fuzz: $(STAMP) ## fuzz everything that reads what strangers write, FUZZ_SECONDS=600 for each target, and count
	$(BIN)/python benchmarks/fuzz.py --seconds $(FUZZ_SECONDS)

.PHONY: scale
scale: $(STAMP) ## studies per hour for 1, 2, 4 and 8 workers on PostgreSQL, with a model that only sleeps (needs dcmtk)
	PATH=/usr/bin:/usr/sbin:$$PATH:$(BIN) $(BIN)/python benchmarks/scale_out.py

.PHONY: pixelmed-check
pixelmed-check: $(STAMP) ## optional: PixelMed's validator on an SR of each kind (Debian's libpixelmed-java)
	PYTHON=$(BIN)/python deploy/pixelmed_check.sh

.PHONY: image-check
image-check: ## build the container image without torch and try it (root, Debian's buildah and debootstrap)
	deploy/image_check.sh

.PHONY: clean
clean: ## remove .venv and what the tools left; .demo/ stays
	rm -rf .venv dist .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'Fourview needs Python 3.11 or later, and $(PYTHON) is not. Name another: make PYTHON=python3.12 ...' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo '$(PYTHON) cannot make a virtual environment. On Debian and Ubuntu: apt install python3-venv' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# pip would choose PyPI's torch for the extra; so torch goes first, and pip leaves it alone afterwards.
$(STAMP): pyproject.toml | $(BIN)/python
	@if $(BIN)/python -c 'import importlib.metadata as m; m.version("torch"); m.version("torchvision")' 2>/dev/null; then \
	  echo 'torch is installed already.'; \
	elif [ -z '$(TORCH_INDEX)' ]; then \
	  $(BIN)/python -m pip install $(foreach package,$(TORCH),'$(package)'); \
	elif timeout 15 $(BIN)/python -c 'import urllib.request; urllib.request.urlopen("$(TORCH_INDEX)/torch/", timeout=5)' 2>/dev/null; then \
	  $(BIN)/python -m pip install --index-url '$(TORCH_INDEX)' $(foreach package,$(TORCH),'$(package)'); \
	else \
	  echo '$(TORCH_INDEX) cannot be reached: torch comes from the usual index of pip, which may be a CUDA build of several GB.'; \
	  $(BIN)/python -m pip install $(foreach package,$(TORCH),'$(package)'); \
	fi
	$(BIN)/python -m pip install -e '.[inference,openvino,demo,dev]'
	@echo '$(CURDIR)' > $@
