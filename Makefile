# Targets for daily use; `make` lists them.
PYTHON ?= python3
VENV ?= .venv
OUT ?= out
DEMO := $(OUT)-demo
BIN := $(VENV)/bin
LOWEST := .venv-lowest
SOURCES := pyproject.toml constraints.txt
# One more than the cores of the smallest machines: tests also wait, for workers and servers.
SIDE_BY_SIDE := -n 3 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help demo preprocess test test-lowest lint bench reliability soak study choices

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

demo: $(VENV)/.ready $(DEMO)/phantom/PHANTOM-truth.json ## set up, run the whole ETL on invented data, draw a reading, pre-train a small model
	$(BIN)/egma-prep run $(DEMO)/phantom --out $(DEMO)/out --config phantom
	rm -f $(DEMO)/reading.png
	$(BIN)/egma-prep inspect --out $(DEMO)/out --png $(DEMO)/reading.png
	$(BIN)/egma-prep report --out $(DEMO)/out
	rm -rf $(DEMO)/out/runs
	$(BIN)/egma-train --shards $(DEMO)/out --out $(DEMO)/out
	@echo
	@echo "The phantom tree:         $(DEMO)/phantom"
	@echo "Tables, images, shards:   $(DEMO)/out"
	@echo "A reading's heatmaps:     $(DEMO)/reading.png"
	@echo "All of it on one page:    $(DEMO)/out/report.html"
	@echo "A small model's run:      $(DEMO)/out/runs"
	@echo "Your own data:            make preprocess DATA=/physionet/mimic-eye"
	@echo "The commands on the PATH: export PATH=\"$$(cd $(BIN) && pwd):\$$PATH\""

preprocess: $(VENV)/.ready ## DATA=... [OUT=out]: the whole ETL on a raw tree
	@test -n "$(DATA)" || { echo "make preprocess needs DATA=/physionet/mimic-eye" >&2; exit 2; }
	$(BIN)/egma-prep run "$(DATA)" --out "$(OUT)"

test: lint ## set up, then lint, types and all tests; what CI runs
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)

test-lowest: $(LOWEST)/.ready ## all tests with the lowest versions of the direct dependencies that pyproject.toml allows: 6 GB of disk
	$(LOWEST)/bin/python -m pytest $(SIDE_BY_SIDE)

lint: $(VENV)/.ready-dev ## formatting, lint, who imports whom, and types alone
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy

reliability: $(VENV)/.ready-dev ## inject every fault, write docs/reliability.md from what happened
	$(BIN)/python -m pytest -q -m fault --fault-matrix=docs/reliability.md

soak: $(VENV)/.ready-dev ## 100 kills, 1,000 flipped bits, 10,000 damaged inputs for each parser: a quarter of an hour
	$(BIN)/python -m pytest -q tests/test_soak.py tests/test_fuzz.py --soak=docs/soak.md

bench: $(VENV)/.ready-dev ## the ETL beside merely decoding, its stages, heatmaps as others make them, what safety costs, runs in a limit of memory, the report's size, DICOM decoders, JPEGs at half size, the loss, the loader, a step on a GPU if there is one, every family of models, training on phantoms: an hour, 8 GB of disk
	$(BIN)/python benchmarks/etl.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/stages.py
	$(BIN)/python benchmarks/rendering.py
	$(BIN)/python -m benchmarks.straight
	$(BIN)/python -m benchmarks.scaling
	$(BIN)/python -m benchmarks.planning
	$(BIN)/python -m benchmarks.big_tables
	$(BIN)/python benchmarks/safety.py
	$(BIN)/python benchmarks/memory_limits.py
	$(BIN)/python benchmarks/published.py
	$(BIN)/python benchmarks/report.py
	$(BIN)/python benchmarks/object_storage.py
	$(BIN)/python benchmarks/dicom_decoders.py
	$(BIN)/python benchmarks/half_size.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/intervals.py
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r benchmarks/litdata.txt
	$(BIN)/python -m benchmarks.loader
	$(BIN)/python benchmarks/embedding.py
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.families
	$(BIN)/python -m benchmarks.gpu
	$(BIN)/python -m benchmarks.walk
	$(BIN)/python benchmarks/phantom_training.py

choices: $(VENV)/.ready-dev ## which window, lead, sigma, weight and label rule recovers what a sentence names, on phantoms: docs/gaze.md
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.choices

study: $(VENV)/.ready-dev ## does gaze help: the runs of the phantom study that are missing, its page and picture
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.study

$(VENV)/.ready: $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train]'
	touch $@

$(VENV)/.ready-dev: $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,dev]'
	touch $@ $(VENV)/.ready

$(LOWEST)/.ready: pyproject.toml
	rm -rf $(LOWEST)
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct -e '.[train,dev]'
	touch $@

$(DEMO)/phantom/PHANTOM-truth.json: | $(VENV)/.ready
	test -d $(DEMO) || mkdir -p -m 700 $(DEMO)
	rm -rf $(DEMO)/phantom
	$(BIN)/egma-prep synth $(DEMO)/phantom --readings 24 --small --checksums
