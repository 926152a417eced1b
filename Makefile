# Two environments: .venv proves that the product needs no torch, .venv-dev holds what building and testing it needs.
# Where packages come from is pip's own configuration.

PYTHON ?= python3
PHOTOS ?=
SHARED ?= ../shared
SAMPLES := chelsea.png astronaut.png motorcycle_left.png coffee.png rocket.jpg

PIP := -m pip --disable-pip-version-check -qq
MODERN := import sys; sys.exit(sys.version_info < (3, 11) and f"GranSAM SDK needs Python 3.11 or newer, found \
{sys.version.split()[0]}; say which one to use: make PYTHON=python3.12 ...")
SAMPLE_FOLDER := from importlib.util import find_spec; print(find_spec("skimage").submodule_search_locations[0])

.PHONY: demo test check format bundle segmenter docs wheel clean help
.DEFAULT_GOAL := help

help:
	@echo 'make demo               annotate sample photos into demo-run/'
	@echo 'make demo PHOTOS=dir    the same with your own photos'
	@echo 'make test               style, types and tests'
	@echo 'make check | format     style and types only | rewrite the style'
	@echo 'make bundle             export the embedded bundle again, with a new head (needs $(SHARED))'
	@echo 'make segmenter          train its segmenter again: hours (needs $(SHARED))'
	@echo 'make docs               write docs/benchmarks.md from benchmarks/results, help texts into docs/commands.md'
	@echo 'make wheel              build dist/*.whl'
	@echo 'make clean              remove what these targets made'

# Other photos or another bundle start afresh; the same go on where they were.
demo: .venv/installed
	@{ echo "$(PHOTOS)"; cat gransam_sdk/bundles/*/gransam.json; } | cksum > .venv/demo.new
	@cmp -s .venv/demo.new .venv/demo || rm -rf demo-run
	@mv .venv/demo.new .venv/demo
	@if [ -n "$(PHOTOS)" ]; then set -- "$(PHOTOS)"; else \
	  folder=$$(.venv/bin/python -c '$(SAMPLE_FOLDER)')/data; set --; \
	  for name in $(SAMPLES); do set -- "$$@" "$$folder/$$name"; done; fi; \
	.venv/bin/gransam annotate "$$@" -o demo-run --overlays --to coco,voc

test: check
	@.venv-dev/bin/python -m pytest

check: .venv-dev/installed
	@.venv-dev/bin/ruff check .
	@.venv-dev/bin/ruff format --check .
	@.venv-dev/bin/mypy

format: .venv-dev/installed
	@.venv-dev/bin/ruff check --fix .
	@.venv-dev/bin/ruff format .

docs: .venv-dev/installed
	@.venv-dev/bin/python benchmarks/write_docs.py
	@.venv-dev/bin/python docs/write_commands.py

bundle: .venv-dev/installed
	@.venv-dev/bin/gransam compile weights/nano.safetensors --arch nano --decoder low-rank -o build/nano --overwrite \
	  --photos "$(SHARED)/data/coco_dev/images" --card docs/model-cards/nano.md
	@.venv-dev/bin/gransam train "$(SHARED)/data/web20" --base build/nano -o gransam_sdk/bundles/nano-voc20 --overwrite

# Four trainings, each going on from the one before.
TRAIN_SEGMENTER := .venv-dev/bin/gransam train-segmenter "$(SHARED)/data/nano_train" --cache build/segmenter --overwrite \
	  --teacher "$(SHARED)/models/mobilenetv2-imagenet.safetensors"

segmenter: .venv-dev/installed
	@mkdir -p build/segmenter
	@$(TRAIN_SEGMENTER) -o build/segmenter/nano-first.safetensors --init "$(SHARED)/models/nano-seed.safetensors" \
	  --sides 224,320 --steps 4422
	@$(TRAIN_SEGMENTER) -o build/segmenter/nano-second.safetensors --init build/segmenter/nano-first.safetensors \
	  --sides 192,288 --steps 4551
	@$(TRAIN_SEGMENTER) -o build/segmenter/nano-third.safetensors --init build/segmenter/nano-second.safetensors \
	  --sides 192,256 --batch 24 --clicks 4 --steps 1696
	@$(TRAIN_SEGMENTER) -o weights/nano.safetensors --init build/segmenter/nano-third.safetensors \
	  --sides 192,288 --batch 24 --clicks 5 --steps 2421
	@cp build/segmenter/nano-first.json build/segmenter/nano-second.json build/segmenter/nano-third.json weights/

wheel: .venv-dev/installed
	@.venv-dev/bin/python -m build --wheel --no-isolation

clean:
	rm -rf .venv .venv-dev build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis demo-run

.venv/installed: pyproject.toml
	@$(PYTHON) -c '$(MODERN)'
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@echo 'installing the package into .venv (once) ...'
	@.venv/bin/python $(PIP) install --editable '.[cpu,samples]'
	@touch $@

.venv-dev/installed: pyproject.toml
	@$(PYTHON) -c '$(MODERN)'
	@test -x .venv-dev/bin/python || $(PYTHON) -m venv .venv-dev
	@echo 'installing the development tools into .venv-dev (once; torch is large) ...'
	@.venv-dev/bin/python $(PIP) install torch==2.13.0
	@.venv-dev/bin/python $(PIP) install --editable '.[dev]'
	@touch $@
