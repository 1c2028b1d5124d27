# `make demo` and `make test` build their own environment; nothing else is needed but Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
PYTEST := pytest -q -n 2 --dist worksteal --durations 10

# Small enough for a CPU: a narrower imle_net than the published one.
DEMO_CONFIG := {"filters": [8, 8, 16], "blocks_per_stage": 1, "lstm_units": 16}
DEMO_FLAGS := --data_dir synthetic --model imle_net --checkpoint_dir checkpoints/demo --log_dir logs/demo

.PHONY: venv demo test lint docs dist package newest accelerators clean

venv: $(VENV)/.complete

$(VENV)/.complete: setup.cfg setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,onnx,formats]'
	touch $@

demo: venv
	$(RUN) -m experiments.synthesize --out data/synthetic --records 1500 --seed 0
	@echo "Training a NARROWER imle_net ($(subst ",,$(DEMO_CONFIG))) on synthetic records: a demonstration, not a result."
	$(RUN) -m experiments.train $(DEMO_FLAGS) --config '$(DEMO_CONFIG)' --batchsize 8 --lr 0.003 --epochs 3
	$(RUN) -m experiments.test $(DEMO_FLAGS)
	$(RUN) -m benchmarks.linear --data_dir synthetic
	$(RUN) -m experiments.inference --dir data/synthetic/records100/00000/00001_lr --checkpoint_dir checkpoints/demo
	@echo "data: data/synthetic   checkpoints: checkpoints/demo/imle_net   logs: logs/demo   page: results/00001_lr/channel_visualization.html"

test: venv lint
	$(RUN) -m $(PYTEST)

lint: venv
	$(VENV)/bin/ruff check --quiet .
	$(VENV)/bin/ruff format --check --quiet .
	$(VENV)/bin/mypy

# The site, in site/; a broken link or an unknown name ends it.
docs: venv
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	$(RUN) -m mkdocs build --quiet

# An sdist, and the wheel made of it.
dist: venv
	rm -rf .package && mkdir .package
	$(RUN) -m pip install --quiet --disable-pip-version-check build
	$(RUN) -m build --outdir .package/dist . > .package/build.log 2>&1 || { tail .package/build.log; exit 1; }

# The wheel, installed in an environment of its own and used from outside the repository.
package: dist
	$(PYTHON) -m venv .package/venv
	.package/venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt .package/dist/*.whl
	cd .package && venv/bin/imlenet --version
	cd .package && venv/bin/imlenet synthesize --out data/synthetic --records 200
	cd .package && venv/bin/imlenet train --data_dir data/synthetic --model mousavi --batchsize 8 --epochs 1
	cd .package && venv/bin/imlenet test --data_dir data/synthetic --model mousavi --by sex > test.log
	cd .package && venv/bin/imlenet inference --model mousavi --dir data/synthetic/records100/00000/00001_lr
	cd .package && venv/bin/imlenet export --model mousavi --format stablehlo --out mousavi.stablehlo
	ls -l .package/dist

# The tests with the newest release of every dependency: make newest PYTHON=python3.13
newest:
	$(PYTHON) -m venv .newest
	.newest/bin/python -m pip install --quiet --disable-pip-version-check --upgrade -e '.[test]'
	.newest/bin/python -m pip list --disable-pip-version-check > .newest/versions.txt
	.newest/bin/python -m $(PYTEST)

# The compilers of benchmarks.compiled, some 3 GB: an environment each, since the two are not made to share one.
accelerators:
	for kind in cuda tpu; do \
		$(PYTHON) -m venv .accelerators/$$kind && \
		.accelerators/$$kind/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$$kind]" || exit 1; \
	done
	@echo "python for --target h100 or a100: .accelerators/cuda/bin/python   for --target v5e: .accelerators/tpu/bin/python"

clean:
	rm -rf $(VENV) site .package .newest build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
