# Two commands do everything on a machine that has only Python 3.11 or newer:  make demo   make test
# Also:  make study [NAME=name]   make bench [ONLY=name] [QUICK=1]   make check   make clean

VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
RUN := tests/runs/organism
# Parallel test processes, each with one thread.
WORKERS ?= 2
EXTRAS ?= dev
# The version that constraints.txt was tested on comes first.
PYTHONS := $(PYTHON) python3.11 python3.12 python3.13 python3.14 python3

.PHONY: demo test check study bench clean

demo: $(STAMP)
	$(BIN)/discover --run $(RUN)

# Every test process and every command that tests start would compile all modules anew without bytecode.
test: check
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(PYTEST)

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

study: $(STAMP)
	$(BIN)/python -m tests.examples $(or $(NAME),all)

bench: $(STAMP)
	$(BIN)/python -m tests.benchmarks $(if $(ONLY),--only $(ONLY)) $(if $(QUICK),--quick)

# Rebuilt whenever the declared or the pinned versions change. A virtual environment whose Python went away is made anew.
$(STAMP): pyproject.toml constraints.txt
	@if ! $(BIN)/python -c '' 2>/dev/null; then \
	    for python in $(PYTHONS) none; do \
	        $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && break; \
	    done; \
	    if [ "$$python" = none ]; then \
	        echo "needs Python 3.11 or newer with venv (Debian: apt install python3-venv); tried: $(PYTHONS). Another one: make PYTHON=/path/to/python" >&2; \
	        exit 1; \
	    fi; \
	    echo "creating $(VENV) with $$($$python --version)"; \
	    $$python -m venv --clear $(VENV); \
	fi
	@echo "installing what constraints.txt pins into $(VENV) (about two minutes and 2 GB the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

# The recording in tests/runs/organism stays; what the demo wrote beside it goes.
clean:
	cd $(RUN) 2>/dev/null && rm -rf config.toml judgements.sqlite* graph.sqlite* candidates.jsonl events.jsonl review.jsonl findings.json report.md report.html \
	    discovery.txt* earlier *.lock || true
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find agent prompts probes tracing tests -name __pycache__ -type d -prune -exec rm -rf {} +
