# The two commands of a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export NO_MKDOCS_2_WARNING := 1

.PHONY: demo test test-all test-tools test-vot lint docs bench clean

demo: .venv/user
	$(BIN)/vosformer demo --out demo-out

test: .venv/dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

test-all: .venv/dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m "slow or not slow" --timeout 3600

# The annotation tools want other versions of OpenCV and NumPy than the rest and each other: an environment of their own.
# From Debian come ffmpeg, and blender for Cryptomatte.
TOOLS := build/tools/bin/python
test-tools:
	test -x $(TOOLS) || $(PYTHON) -m venv build/tools
	$(TOOLS) -m pip install -q $(CONSTRAINTS) -e ".[formats-test,serve]" datumaro pytest pytest-timeout hypothesis
	$(TOOLS) -m pip install -q --no-deps label-studio-sdk trackeval labelme
	$(TOOLS) -m pip install -q $(CONSTRAINTS) scipy tabulate httpx pydantic lxml ijson ujson joblib nltk jsonschema requests xmljson \
		appdirs smart_open jsf Faker rstr typer watchfiles pyjwt requests-mock datamodel-code-generator \
		onnxruntime loguru natsort imgviz PyQt5 tifffile scikit-image OpenEXR mmh3
	$(TOOLS) -m pytest -rs -m "slow or not slow" tests/formats/test_formats_tools.py tests/plugins/test_labelstudio.py

# VOT's toolkit wants another OpenCV, too. 0.8.0 to 0.9.0 fail in their own multi-start experiment before a tracker is started.
test-vot: .venv/dev
	test -x build/vot/bin/python || $(PYTHON) -m venv build/vot
	build/vot/bin/python -m pip install -q vot-toolkit==0.7.4 attributee==0.1.9
	VOSFORMER_VOT=$(CURDIR)/build/vot/bin/vot $(BIN)/python -m pytest tests/evaluation/test_vot_toolkit.py

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/mkdocs build --strict --quiet --site-dir build/site

docs: .venv/dev
	$(BIN)/mkdocs build --strict

bench: .venv/dev
	$(BIN)/python benchmarks/track.py

# constraints.txt keeps the CPU build of torch: without it pip may take gigabytes of CUDA. For a GPU: `make demo CONSTRAINTS=`.
CONSTRAINTS ?= -c constraints.txt

.venv/user: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q $(CONSTRAINTS) -e .
	@touch $@

.venv/dev: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q $(CONSTRAINTS) -e ".[dev]"
	@touch $@ .venv/user

clean:
	rm -rf .venv demo-out runs build dist site
