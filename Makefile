# Two commands are enough: `make demo` shows what MedTune does, `make test` whether it works here.
# Both set up .venv by themselves (with uv where it is installed, otherwise with venv and pip).

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
RESULT ?= medtune-demo
# tests start dozens of processes: where Python is told to keep no bytecode, each would compile all of torch anew
KEEP := PYTHONDONTWRITEBYTECODE= PYTHONPYCACHEPREFIX=$(CURDIR)/$(VENV)/bytecode

.PHONY: demo test test-slow check bench clean

demo: $(READY)
	$(BIN)/medtune demo --out $(RESULT)

test: $(READY)
	$(KEEP) $(BIN)/python -m pytest -n 2 --dist loadfile --durations 15

test-slow: $(READY)
	$(KEEP) $(BIN)/python -m pytest -m slow --durations 15

check: $(READY)
	$(BIN)/ruff check .

bench: $(READY)
	$(BIN)/python benchmarks/bench.py $(BENCH)
	$(BIN)/python benchmarks/scoring.py

$(READY): pyproject.toml requirements.txt
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || command -v uv >/dev/null || \
	  { echo "MedTune needs Python 3.10 or newer (this is $$(python3 --version)), or uv, which brings one"; exit 1; }
	@if command -v uv >/dev/null; then \
	  [ -x $(BIN)/python ] || uv venv --quiet --python '>=3.10' $(VENV); \
	  uv pip install --quiet --python $(BIN)/python -e '.[torch,test]'; \
	else \
	  [ -x $(BIN)/python ] || python3 -m venv $(VENV); \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[torch,test]'; \
	fi
	@touch $@

clean:
	rm -rf $(VENV) $(RESULT) *.egg-info
