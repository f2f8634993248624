# Two commands do everything: `make demo` and `make test`. Both create .venv and install what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test chaos lint install clean

# torch first, on its own: its ordinary wheel for Linux brings gigabytes of CUDA. TORCH_CPU_INDEX=URL, the package index of
# torch's CPU wheels, spares a machine without a GPU those.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $(if $(TORCH_CPU_INDEX),--no-deps --index-url "$(TORCH_CPU_INDEX)") \
		-c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,cluster]"
	touch $@

install: $(VENV)/.installed

demo: $(VENV)/.installed
	$(BIN)/python jobs/full_grid.py

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest

# HTR_RAY_CHAOS faults at random moments (HTR_RAY_CHAOS_SEED) of real grids: three quarters of an hour on two cores.
chaos: $(VENV)/.installed-dev
	HTR_RAY_CHAOS=$${HTR_RAY_CHAOS:-50} $(BIN)/python -m pytest tests/chaos -m chaos -s

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check htr_ray jobs tests
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist *.egg-info
