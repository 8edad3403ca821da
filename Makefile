# Everything installs itself: `make run` and `make test` on a fresh machine.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONFIG ?= configs/wide_mnist_digits.py
WORKDIR ?= runs/$(basename $(notdir $(CONFIG)))
export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: run test lint types floors check bench results format clean

run: $(VENV)/.installed
	$(BIN)/python -m composer_tf --config=$(CONFIG) --workdir=$(WORKDIR) $(ARGS)

test: $(VENV)/.installed
	$(BIN)/python -m pytest --numprocesses=auto $(ARGS)

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed
	$(BIN)/pyright

floors: $(VENV)/.installed
	$(BIN)/lint-imports --no-cache

check: lint types floors test

# All benchmarks. The last ones train first, CIFAR-10's for two hours.
bench: $(VENV)/.installed
	$(BIN)/python benchmarks/training_speed.py --rounds=5 --output=results/training_speed.json
	$(BIN)/python benchmarks/estimator_variance.py --samples=500 --output=results/estimator_variance.json
	$(BIN)/python benchmarks/estimator_training.py --data=wide_mnist/mnist --epochs=9 --seeds=3 --output=results/estimator_training.json
	$(BIN)/python benchmarks/export_latency.py --rounds=10 --output=results
	$(BIN)/python benchmarks/growth.py --rounds=3 --output=results/growth.json
	$(BIN)/python benchmarks/startup.py --output=results/startup.json
	$(MAKE) accuracy_latency-wide_mnist accuracy_latency-cifar10

accuracy_latency-%: $(VENV)/.installed
	$(BIN)/python -m composer_tf --config=configs/$*.py --workdir=runs/$*
	$(BIN)/python benchmarks/accuracy_latency.py --run=runs/$* \
	  --output=results/accuracy_latency/$*

# One folder of results/ for each; a run that was stopped is resumed.
results: $(addprefix results-,wide_mnist wide_mnist_ablation \
  mnist_specialisation price_ablation cifar10 cifar10_ablation entropy_ablation \
  entropy_test_time)

results-%: $(VENV)/.installed
	$(BIN)/python -m composer_tf --config=configs/$*.py --workdir=runs/$*_5 \
	  --config.num_seeds=5 --publish=results/$*

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) *.egg-info .pytest_cache .ruff_cache

$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	  { echo "error: Python 3.11 to 3.13 is needed, as by TensorFlow; set PYTHON=..."; exit 1; }
	$(BIN)/python -m pip --version >/dev/null 2>&1 || \
	  $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt \
	  --editable '.[dev]'
	touch $@
