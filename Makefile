# Everything happens in .venv. Stamp files in it say what is installed, so that a second call installs nothing.

PYTHON ?= python3
PROMPT ?=
SAMPLES ?= 100000
export PROMPT

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -q
TORCH := $(shell sed -n 's/^torch==/torch==/p' constraints.txt)
RUN ?= runs/default-model
MODEL := src/unnoise/models/default

# The data tests and `unnoise data emoji` draw with this font. Where it is missing, root on Debian gets it installed.
define FONT
@$(BIN)/python -c 'from unnoise.data.font import find_font; find_font()' 2>/dev/null || \
{ [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && echo "installing the font Noto Color Emoji" && \
  apt-get update -qq && apt-get install -y -qq fonts-noto-color-emoji; } || \
{ echo "make: there is no colour-emoji font; on Debian and Ubuntu: sudo apt-get install fonts-noto-color-emoji" >&2; exit 1; }
endef

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow soak check setup default-model clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.run ## draw pictures with the model that comes with unnoise, and a contact sheet; PROMPT="..." draws yours
	@$(BIN)/python examples/demo.py $${PROMPT:+"$$PROMPT"}

test: $(VENV)/.dev ## run the tests, except for the long ones
	$(FONT)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: $(VENV)/.dev ## run the long tests
	$(FONT)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow -n 2 --dist loadfile

soak: $(VENV)/.dev ## run what takes ten minutes or more: before a release, or when the mathematics changes
	$(FONT)
	$(BIN)/python -m pytest -m soak

check: $(VENV)/.dev ## check format, lint, types and which package may import which
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_layers.py

setup: $(VENV)/.dev ## make .venv with all that development needs

default-model: $(VENV)/.train ## train the default model further, or go on with that; SAMPLES=100000 RUN=runs/default-model
	$(FONT)
	$(BIN)/unnoise data emoji --out data/emoji
	@if [ -e $(RUN)/model ]; then \
		echo "make: the training at $(RUN) is finished; begin another: make default-model RUN=runs/default-model-2" >&2; exit 1; \
	elif ls $(RUN)/checkpoints/step-*/manifest.json >/dev/null 2>&1; then set -x; \
		$(BIN)/unnoise train --resume $(RUN) --train.samples $(SAMPLES); \
	else set -x; \
		$(BIN)/unnoise train emoji-flow --data data/emoji --init $(MODEL) --train.samples $(SAMPLES) --train.batch 32 --run.out $(RUN); \
	fi
	$(BIN)/unnoise measure $(MODEL) --data data/emoji
	$(BIN)/unnoise measure $(RUN) --data data/emoji
	@echo "look at it:               $(BIN)/unnoise generate \"red apple\" --model $(RUN)"
	@echo "fit its spacing:          $(BIN)/unnoise search --method curve --prompts bench/curve_prompts.txt --cfg-scale 2 --model $(RUN)"
	@echo "make it the default:      $(BIN)/python tools/install_model.py $(RUN) --steps 10 --cfg-scale 2 --spacing \"curve(times=[...])\""

clean: ## remove .venv and the tools' caches; pictures, data and runs stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache

$(VENV)/.made:
	@command -v "$(PYTHON)" >/dev/null || \
	{ echo "make: there is no $(PYTHON); install Python 3.11, 3.12 or 3.13, or name one: make PYTHON=python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	{ echo "make: $$("$(PYTHON)" -V) will not do; unnoise wants 3.11, 3.12 or 3.13: make PYTHON=python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || \
	{ echo "make: $(PYTHON) cannot make environments; on Debian and Ubuntu: sudo apt-get install python3-venv" >&2; exit 1; }
	@echo "making $(VENV)"
	@"$(PYTHON)" -m venv $(VENV)
	@touch $@

# torch comes first and by its exact version, so that pip takes a build for processors where one is at hand.
$(VENV)/.torch: $(VENV)/.made constraints.txt
	@echo "installing $(TORCH) (large, the first time)"
	@$(PIP) "$(TORCH)"
	@touch $@

$(VENV)/.run: $(VENV)/.torch pyproject.toml
	@echo "installing unnoise"
	@$(PIP) -c constraints.txt -e .
	@touch $@

$(VENV)/.train: $(VENV)/.torch pyproject.toml
	@echo "installing unnoise and what its trainings need"
	@$(PIP) -c constraints.txt -e ".[train]"
	@touch $(VENV)/.run $@

# Without its dependencies: k-diffusion, a reference in tests, wants a torchvision that not every torch has.
$(VENV)/.dev: $(VENV)/.torch pyproject.toml
	@echo "installing unnoise and what its tests need"
	@$(PIP) -c constraints.txt -e ".[all,dev]"
	@$(PIP) -c constraints.txt --no-deps k-diffusion
	@touch $(VENV)/.run $(VENV)/.train $@
