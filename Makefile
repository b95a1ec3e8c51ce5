# `make demo` and `make test` set everything up in .venv first.
PYTHON ?= python3
BIN = .venv/bin
# Tests take mostly one core each: TensorFlow prepares its graphs on one.
PYTEST = python -m pytest -n 2 --dist worksteal

.PHONY: install install-addons demo check test test-slow test-all test-addons addons-proof doctor-proof resume-proof \
	train-proof serve-proof wheel-proof gpu-proof audit-proof deploy-check docs release

install: .venv/installed

.venv/installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	touch $@

demo: .venv/installed
	@$(BIN)/python -m tools.demo

# The linter, the types, and which room imports which: about a minute.
check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/ground/test_imports.py

# The fast tier: every module and every promise once. A test of it may take ten seconds on two cores that do nothing else.
LIMIT_S = 10
test: check
	$(BIN)/$(PYTEST) -m "not slow" --limit_s=$(LIMIT_S)

# What the fast tier leaves out.
test-slow: .venv/installed
	$(BIN)/$(PYTEST) -m slow

# Both in one go, which trains and exports what the tests share only once.
test-all: check
	$(BIN)/$(PYTEST) --limit_s=$(LIMIT_S)

# The wheel in an empty environment, away from the sources: it reads, renders, packs, trains and serves.
wheel-proof: .venv/installed
	$(BIN)/python tests/prove_wheel.py

# For a machine with CUDA: mixed precision, all GPUs, no op of the CTC loss on the host, lines a second; at most eight minutes.
gpu-proof: .venv/installed
	@$(BIN)/python tests/prove_gpu.py

# Labels that are wrong, found and corrected, and what training on them costs: about six minutes of a core. SEED draws others.
SEED = 1
audit-proof: .venv/installed
	PROOF=audit-proof $(BIN)/python -m pytest -m proof tests/evaluation/test_audit.py
	@$(BIN)/python tests/prove_audit.py $(SEED)

# What runs with TensorFlow 2.15 and its addons, in an environment of its own; Keras 2.15 has warnings of its own.
OLD = .venv-addons/bin

install-addons: .venv-addons/installed

.venv-addons/installed: setup.cfg pyproject.toml constraints-addons.txt
	python3.11 -m venv .venv-addons
	$(OLD)/pip install --quiet --disable-pip-version-check --constraint constraints-addons.txt --editable '.[addons]' \
		pytest-xdist tensorflow-serving-api
	touch $@

OLD_PYTEST = OTHER_PYTHON=$(abspath $(BIN)/python) $(OLD)/$(PYTEST) -W default
# What depends on Keras or on kernels that TensorFlow has changed since; and what depends on neither by intention.
OLD_TESTS = $(addprefix tests/, ground/test_addons.py ground/test_ctc.py ground/test_ctc_inputs.py model saving data/test_pipeline.py \
	$(addprefix training/test_,devices.py optimizer.py run.py state.py steps.py train.py warm_start.py))
OTHER_OLD_TESTS = $(addprefix tests/, ground/test_charset.py images doctor/test_examine.py data/test_sampling.py \
	data/test_mixture.py data/test_resume.py $(addprefix tfrecords/test_,files.py manifest.py reader.py schema.py writer.py))

test-addons: .venv/installed .venv-addons/installed
	$(OLD_PYTEST) $(OLD_TESTS) -m "not alike and not slow"

# All of both, and a training with each optimizer and the augmentation of TensorFlow Addons that reads within two
# minutes.
addons-proof: .venv/installed .venv-addons/installed
	PROOF="train-proof doctor-proof" $(OLD_PYTEST) $(OLD_TESTS) $(OTHER_OLD_TESTS)
	PROOF=addons-proof $(OLD)/python -m pytest -W default -s tests/ground/test_addons.py -m proof

# Each fault that the doctor must find, with three seeds: about half an hour.
doctor-proof: .venv/installed
	PROOF=doctor-proof $(BIN)/python -m pytest tests/doctor/test_examine.py tests/training/test_puzzle.py

# A conversion of 100,000 files killed at 20 moments and resumed, compared to the byte: about ten minutes.
resume-proof: .venv/installed
	RESUME_LINES=100000 RESUME_MOMENTS=20 $(BIN)/python -m pytest tests/data/test_resume.py -k killed

# A training killed at ten moments, compared to the bit; resumed with dropout; on replicas with batch norm; on two workers, one
# of them killed; 10,000 steps that get neither slower nor larger: about twenty minutes, on cores that do nothing else.
train-proof: .venv/installed
	SURVIVAL_MOMENTS=10 $(BIN)/python -m pytest tests/training/test_state.py -k again_and_again
	PROOF=train-proof $(BIN)/python -m pytest -m proof -s $(addprefix tests/training/test_,devices.py state.py steps.py soak.py)

# A server that reads 1,000 lines as the trainer does; and that bears 10,000 mutated images, 20 new versions within 50,000
# requests, a minute of overload, 2,000 idle connections with 1,024 descriptors, and 1,000 versions that vanish.
serve-proof: .venv/installed
	SERVE_LINES=1000 $(BIN)/python -m pytest tests/serving/test_server.py -k every_way
	SERVE_FUZZED=10000 SERVE_SWAPS=20 SERVE_REQUESTS=50000 SERVE_OVERLOAD_S=60 SERVE_IDLE=2000 \
		SERVE_DESCRIPTORS=1024 SERVE_VANISHING=1000 $(BIN)/python -m pytest tests/serving/test_load.py -s

# The files in deploy, without docker or a cluster: the Dockerfiles' linter, the schemas of Kubernetes, and what they say about
# the commands. `make test` has the last part.
deploy-check: .venv/installed-deploy
	$(BIN)/hadolint deploy/*.Dockerfile
	$(BIN)/python -m pytest tests/deploy

# Pages of the API from the docstrings: build/docs/index.html.
docs: .venv/installed-docs
	rm -rf build/docs
	TF_CPP_MIN_LOG_LEVEL=3 PDOC_ALLOW_EXEC=1 $(BIN)/python -m pdoc --docformat google --output-directory build/docs ocr tfrecords

# Builds and checks the packages of the committed tree and tags it; pushes and uploads nothing.
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)".*/\1/p' ocr/__init__.py)

release: .venv/installed-release
	@test -z "$$(git status --porcelain)" || { git status --short; echo "release: commit or remove these first" >&2; exit 1; }
	@! git rev-parse --quiet --verify "refs/tags/v$(VERSION)" > /dev/null || { echo "release: v$(VERSION) is tagged already" >&2; exit 1; }
	@grep -q '^## \[$(VERSION)\] - 20' CHANGELOG.md || { echo "release: CHANGELOG.md has no dated $(VERSION)" >&2; exit 1; }
	@grep -q '^version: $(VERSION)$$' CITATION.cff || { echo "release: CITATION.cff is not of $(VERSION)" >&2; exit 1; }
	rm -rf dist build/release
	mkdir -p build/release
	git archive HEAD | tar -x -C build/release
	$(BIN)/python -m build --outdir dist build/release
	$(BIN)/twine check --strict dist/*
	git tag --annotate --message "line-ocr $(VERSION)" "v$(VERSION)"

# What only these need: the extras [deploy], [docs] and [release].
.venv/installed-deploy .venv/installed-docs .venv/installed-release: .venv/installed-%: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$*]'
	touch $@
