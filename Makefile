# Plain pip underneath; README.md shows the same without make.
#   make demo   set up .venv and run the whole path offline on a simulated cohort; open demo/index.html
#   make test   set up .venv and run the tests
#   make check  everything CI asks for
PYTHON ?= python3
VENV ?= .venv
DEMO_OUT ?= demo
PYTEST_ARGS ?= -n auto --maxprocesses=4
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check
STAMP = $(VENV)/.installed

.PHONY: demo test check format clean

demo: $(STAMP)
	$(BIN)/brainage demo $(DEMO_OUT)

test: $(STAMP)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest $(PYTEST_ARGS)

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf build dist demo .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "brainage needs Python 3.11 or newer; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "Python's venv module is missing; on Debian and Ubuntu install the package python3-venv, then run make again" >&2; exit 1; }
# A pip too old to read a wheel's metadata alone would download torch for the question below.
	@$(PIP) install --quiet --upgrade "pip>=24.1"
# On Linux the torch of the ordinary package index brings several GB of CUDA. Where that is what pip would
# fetch and there is no NVIDIA GPU, uv, which knows where PyTorch keeps its CPU wheels, fetches that one
# package. ALLOW_CUDA=1 takes the ordinary wheel all the same.
	@if [ -z "$(ALLOW_CUDA)" ] && ! nvidia-smi >/dev/null 2>&1 \
	  && $(PIP) install --dry-run --quiet --report - -c constraints.txt torch 2>/dev/null \
	     | grep -Eq '"name": "(nvidia|cuda)-'; then \
	  echo "No NVIDIA GPU here: fetching the CPU build of torch."; \
	  $(PIP) install --quiet uv \
	  && $(BIN)/uv pip install --quiet --python $(BIN)/python --torch-backend=cpu -c constraints.txt torch \
	  || { echo "The CPU build of torch could not be fetched. Install it into $(VENV) by hand and run make again, or take the build with CUDA: make $(MAKECMDGOALS) ALLOW_CUDA=1" >&2; exit 1; }; \
	fi
	@echo "Installing brainage and what it needs into $(VENV)."
	@$(PIP) install --quiet -c constraints.txt -e ".[dev]"
	@touch $@
