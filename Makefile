# make demo   environment, build (CUDA for the GPUs that are here), active learning on scikit-learn's
#             digits, pictures under demo/
# make test   environment, build (CUDA for all GPUs), lint, all tests (those of the wheel too)
# make dev    environment with what the tests, the linter and the pages need, build
# make check  the quick part of it: lint, and beside it the tests of what a change of Python can break
# make docs   environment, build, the pages in docs/build/html, tutorials run (a warning is an error)
# make wheel  a wheel in dist/ for this Python and every torch from 2.11 on, tried under three of them
# make bench  environment, build, the tables of the pages as this machine measures them (minutes)
# make figures  the same with more turns, into benchmarks/results, the pages and their pictures;
#             with DATA_ROOT=FOLDER, because its tables have rows of MNIST (FOLDER/MNIST/raw)
# make gpu    on a machine with a GPU: build, tests on it, compute-sanitizer, timings, in 25 minutes at
#             most (STEPS=needs: is anything missing? STEPS="build tests": these alone; REHEARSE=1:
#             what of it needs no GPU)
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEV := $(VENV)/.ready-dev
PIP = $(BIN)/python -m pip --disable-pip-version-check install -c constraints.txt
# The tests of make check: rooms without processes of their own, whose tests take seconds.
QUICK := $(addprefix python_tests/, files labelling network perturbation pool strategies)
DATA = $(if $(DATA_ROOT),--data-root $(DATA_ROOT))
# As many processes as cores, at most four (each takes over a gigabyte): a file of tests is one
# process's, so that what its tests share is made once. In the order of their names: by the number of
# their tests, which is xdist's order, the files with a few slow ones would come last, one at a time.
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: demo test dev check quick docs wheel bench figures opponents gpu lint build clean

demo: export VAAL_CUDA_ARCH ?= native
demo: build
	sh benchmarks/demo.sh $(BIN)

test: dev lint
	$(PYTEST) -m "wheel or not wheel"

check: dev
	$(MAKE) -j 2 lint quick

quick: $(DEV)
	$(PYTEST) -m "not wheel and not slow" $(QUICK)

docs: dev
	$(BIN)/python -m sphinx -W --keep-going -b html docs/source docs/build/html

wheel: dev
	rm -rf build/wheel dist
	$(BIN)/python setup.py -q build -b build/wheel bdist_wheel -d dist
	$(BIN)/python -m pytest -m wheel

bench: build opponents
	$(BIN)/vaal-ext bench --device cpu --quick --out build/bench $(DATA)
	$(BIN)/python benchmarks/readme.py --results build/bench --print

figures: build opponents
	@test -n "$(DATA_ROOT)" || { echo "type: make figures DATA_ROOT=FOLDER, which holds MNIST/raw"; exit 2; }
	$(BIN)/vaal-ext bench --device cpu --out benchmarks/results $(DATA)
	$(BIN)/python benchmarks/readme.py
	$(BIN)/python benchmarks/redraw.py

# Opponents of the benchmarks that nothing else needs.
opponents: $(READY)
	$(PIP) foolbox

gpu:
	sh benchmarks/gpu.sh $(STEPS)

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	find csrc python_tests/emulation -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' | \
	  xargs $(BIN)/clang-format --dry-run -Werror

dev: build $(DEV)

build: $(READY)
	$(BIN)/python setup.py -q build_ext --inplace

# torch comes first: the package is built against the torch that runs it. pip would build where nobody
# sees it (it hides what a build says), so it installs the package without, and `build` follows.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch torchvision 'setuptools>=77' ninja pybind11
	VAAL_BUILD=reference $(PIP) --no-build-isolation -e '.[experiments]'
	touch $(READY)

# What the tests, the linter and the pages need besides.
$(DEV): $(READY)
	VAAL_BUILD=reference $(PIP) --no-build-isolation -e '.[experiments,dev]'
	# Without what they ask for and the tests do not use: Jupyter, and skorch of 2020.
	$(PIP) --no-deps baal modAL-python
	touch $(DEV)

clean:
	rm -rf build vaal_ext/*.so vaal_ext/_ops_cuda.resources.txt
