# `make demo` and `make test` set everything up in .venv first.
PYTHON ?= python3
BIN = .venv/bin

.PHONY: install demo test test-addons doctor-proof resume-proof train-proof serve-proof

install: .venv/installed

.venv/installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	touch $@

demo: .venv/installed
	@$(BIN)/python -m tools.demo

test: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

# What runs with TensorFlow 2.15 and its addons, in an environment of its own; Keras 2.15 has warnings of its own.
OLD = .venv-addons/bin

.venv-addons/installed: setup.cfg pyproject.toml
	python3.11 -m venv .venv-addons
	$(OLD)/pip install --quiet --disable-pip-version-check --editable '.[addons]' pytest tensorflow-serving-api==2.15.1
	touch $@

test-addons: .venv-addons/installed
	$(OLD)/python -m pytest -W default tests/test_addons.py tests/test_charset.py tests/test_ctc.py tests/test_decode.py \
		tests/test_export.py tests/test_fast_layers.py tests/test_frozen.py tests/test_images.py tests/test_inputs.py \
		tests/test_learner.py tests/test_models.py tests/test_optimizer.py tests/test_order.py tests/test_records.py

# Each fault that the doctor must find, with three seeds: about half an hour.
doctor-proof: .venv/installed
	DOCTOR_SEEDS=3 $(BIN)/python -m pytest tests/test_doctor.py

# A conversion of 100,000 files killed at 20 moments and resumed, compared to the byte: about ten minutes.
resume-proof: .venv/installed
	RESUME_LINES=100000 RESUME_MOMENTS=20 $(BIN)/python -m pytest tests/test_resume.py -k killed

# A training killed at ten moments, compared to the bit; 10,000 steps that get neither slower nor larger: about ten
# minutes, on cores that do nothing else.
train-proof: .venv/installed
	SURVIVAL_MOMENTS=10 $(BIN)/python -m pytest tests/test_survival.py -k again_and_again
	SOAK_STEPS=10000 $(BIN)/python -m pytest tests/test_soak.py -s

# A server that reads 1,000 lines as the trainer does; and that bears 10,000 mutated images, 20 new versions within 50,000
# requests, and a minute of overload.
serve-proof: .venv/installed
	SERVE_LINES=1000 $(BIN)/python -m pytest tests/test_serve.py -k every_way
	SERVE_FUZZED=10000 SERVE_SWAPS=20 SERVE_REQUESTS=50000 SERVE_OVERLOAD_S=60 $(BIN)/python -m pytest tests/test_load.py -s
