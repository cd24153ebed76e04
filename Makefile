# Every target does its own set-up: a virtual environment, and the package with what the target needs in it.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
LINT   := $(VENV)-lint/bin
DOCS   := $(VENV)-docs/bin
# One worker for each core, as to trace takes one; four at most, as each takes 3 GB. A worker that is done steals
# from another, but keeps most of a file's tests to itself, and with them what they share.
PYTEST := $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal

.PHONY: help demo test test-all test-fast test-minimum test-hub test-ray fuzz lint format docs notebooks notebooks-write bench \
	bench-check bench-dataset bench-methods bench-ray bench-serving bench-training bench-trust peers gallery parity applications formats truth clean
.NOTPARALLEL:  # two pips must not install into one environment at the same time

help:  ## say what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/demo.stamp  ## explain real photographs; the pictures are in build/demo
	$(BIN)/tf-gradcam demo --out build/demo

test: lint docs $(VENV)/test.stamp  ## run lint, build the site, and run the tests, with one method of each family in a product
	$(PYTEST) -m "not full" --durations=20 $(PYTEST_ARGS)

test-all: lint docs $(VENV)/test.stamp  ## run lint, build the site, and run every test, the full products of kinds and methods too
	$(PYTEST) --durations=20 $(PYTEST_ARGS)

test-fast: $(VENV)/test.stamp  ## run the tests that take no patience
	$(PYTEST) -m "not slow and not full" $(PYTEST_ARGS)

# Old releases raise warnings about newer packages, so warnings are not errors here.
test-minimum:  ## run the fast tests with the oldest versions that are supported
	$(MAKE) test-fast VENV=.venv-minimum CONSTRAINTS=tests/minimum.txt PYTEST_ARGS="-W default"

test-hub: $(VENV)/hub.stamp  ## explain models of KerasHub, which takes a few more packages
	$(BIN)/python -m pytest tests/test_keras_hub.py $(PYTEST_ARGS)

test-ray: $(VENV)/test.stamp $(VENV)/ray.stamp  ## explain on a cluster of two nodes, one of them killed; takes Ray
	$(BIN)/python -m pytest tests/test_ray.py $(PYTEST_ARGS)

fuzz: $(VENV)/test.stamp  ## call everything with odd arguments and damaged files, 40,000 times; takes an hour
	PYTHONPATH=tests $(BIN)/python tests/fuzz/fuzz_responses.py
	PYTHONPATH=tests $(BIN)/python tests/fuzz/fuzz_files.py
	PYTHONPATH=tests $(BIN)/python tests/fuzz/fuzz_calls.py

lint: $(VENV)-lint/stamp  ## check style, format and types, in seconds
	$(LINT)/ruff check
	$(LINT)/ruff format --check
	$(LINT)/mypy

# The theme advertises its successor on every build, in the colours of a warning.
docs: $(VENV)-docs/stamp  ## build the documentation site in build/site; a warning fails
	NO_MKDOCS_2_WARNING=1 $(DOCS)/mkdocs build --strict

format: $(VENV)-lint/stamp  ## format the code, and fix what ruff can fix
	$(LINT)/ruff check --fix
	$(LINT)/ruff format

notebooks: $(VENV)/test.stamp  ## run the notebooks, and compare what they tell with what is kept
	$(BIN)/python -m pytest tests/test_notebooks.py

notebooks-write: $(VENV)/test.stamp  ## run the notebooks, and keep their new texts and pictures
	$(BIN)/python tests/notebook_runs.py

bench: $(VENV)/test.stamp  ## time Grad-CAM beside a forward pass, for docs/speed.md
	$(BIN)/python benchmarks/speed.py

bench-check: $(VENV)/test.stamp  ## compare with docs/speed.md, and fail where it is 25 % slower
	$(BIN)/python benchmarks/speed.py --check

bench-methods: $(VENV)/test.stamp  ## time every method, for docs/methods.md
	$(BIN)/python benchmarks/methods.py

bench-trust: $(VENV)/test.stamp  ## time `trust`, and randomize weights for every method, for docs/trust.md
	$(BIN)/python benchmarks/trust.py
	$(BIN)/python benchmarks/sanity.py

bench-serving: $(VENV)/test.stamp  ## put a served model under load, for docs/serving-load.md
	$(BIN)/python benchmarks/serving.py

bench-ray: $(VENV)/test.stamp $(VENV)/ray.stamp  ## time 1 and 2 workers of Ray, for docs/ray.md
	$(BIN)/python benchmarks/ray_rates.py

bench-dataset: $(VENV)/test.stamp  ## time JPEG files to Parquet beside the explainer alone, for docs/datasets.md
	$(BIN)/python benchmarks/dataset.py throughput

bench-training: $(VENV)/test.stamp  ## time the callback beside a training step, for docs/training.md
	$(BIN)/python benchmarks/training.py

peers: $(BIN)/pip  ## time other Keras libraries, for docs/peers.md; takes five environments, 11 GB
	$(BIN)/python benchmarks/peers.py --write docs/peers.md

gallery: $(VENV)/test.stamp  ## draw every method on photographs, for docs/methods.md
	$(BIN)/python benchmarks/gallery.py

parity:  ## compare every method and metric with PyTorch's libraries, for docs/parity.md; takes torch
	$(MAKE) $(VENV)-parity/test.stamp VENV=$(VENV)-parity
	$(VENV)-parity/bin/python -m pip install --quiet --disable-pip-version-check \
		--requirement benchmarks/parity/requirements.txt
	test -d $(VENV)-parity/ReciproCAM || \
		git clone --quiet https://github.com/sybyun/ReciproCAM $(VENV)-parity/ReciproCAM
	test -d $(VENV)-parity/OptiCAM || \
		git clone --quiet https://github.com/hanwei0912/OptiCAM $(VENV)-parity/OptiCAM
	$(VENV)-parity/bin/python benchmarks/parity/compare.py

applications: $(VENV)/test.stamp  ## explain every model of keras.applications, for docs/applications.md
	$(BIN)/python benchmarks/applications.py

formats: $(VENV)/test.stamp  ## write files for LiteRT, ONNX and OpenVINO and compare, for docs/formats.md
	$(BIN)/python benchmarks/formats.py

truth: $(VENV)/test.stamp  ## measure methods and metrics where the truth is known, for docs/truth.md
	$(BIN)/python benchmarks/truth.py --write docs/truth.md
	$(BIN)/python benchmarks/truth_families.py --write docs/truth.md

clean:  ## remove everything that was made
	rm -rf .venv .venv-docs .venv-lint .venv-minimum .venv-parity .venv-peers build dist *.egg-info
	rm -rf .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

# The stem is the extra to install. pip records the version, so a new one in __init__.py installs again.
$(VENV)/%.stamp: pyproject.toml setup.cfg tf_gradcam/__init__.py $(CONSTRAINTS) | $(BIN)/pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		$(addprefix --constraint ,$(CONSTRAINTS)) --editable ".[$*]"
	@touch $@

# The requirements of one extra, `lint` or `docs`, without the package and its TensorFlow: both read the sources alone.
$(VENV)-lint/stamp $(VENV)-docs/stamp: $(VENV)-%/stamp: pyproject.toml | $(VENV)-%/bin/pip
	$(@D)/bin/python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
		print(*project['optional-dependencies']['$*'], sep='\n')" > $(@D)/requirements.txt
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $(@D)/requirements.txt
	@touch $@

# bin/pip, not bin/python: where ensurepip is missing, venv fails and leaves bin/python behind.
$(BIN)/pip $(LINT)/pip $(DOCS)/pip:
	$(PYTHON) -m venv $(@:/bin/pip=)
