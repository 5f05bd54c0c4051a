# Two commands do everything on a fresh machine: `make run` and `make test`.
PYTHON ?= python3
KDBENCH := .venv/bin/kdbench

.PHONY: run test lint install install-test install-lint

run: install
	$(KDBENCH) run --suite instruct --objectives core

test: install-test
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n 2 --dist loadfile

lint: install-lint
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-cache
	NO_MKDOCS_2_WARNING=1 .venv/bin/python -m mkdocs build --strict --quiet

# These do nothing when the environment already holds what pyproject.toml asks for.
install:
	@$(PYTHON) tools/install.py

install-test:
	@$(PYTHON) tools/install.py --extra test

install-lint:
	@$(PYTHON) tools/install.py --extra test --extra docs
