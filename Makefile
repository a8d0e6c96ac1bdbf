# Every target does all of its own set-up; see tools/setup.sh. The second run is quick.
.PHONY: help demo test bench lint clean
.NOTPARALLEL:

PYTHON := .venv/bin/python

help:
	@echo "make demo   three nodes in network namespaces, real traffic, a table (root)"
	@echo "make test   lint, sanitizers, fuzz targets, every test (root runs all of them)"
	@echo "make bench  the figures of docs/benchmarks.md, into bench/results (root)"
	@echo "make lint   ruff and mypy"
	@echo "make clean  remove everything that the others made"

demo:
	@tools/setup.sh demo
	@.venv/bin/weft demo $(DEMO_ARGS)

test:
	@tools/setup.sh test
	@tools/lint.sh
	@tools/sanitize.sh
	@tools/fuzz.sh
	@tools/tests.sh $(PYTEST_ARGS)

bench:
	@tools/setup.sh bench
	@$(PYTHON) -m bench

lint:
	@tools/setup.sh lint
	@tools/lint.sh

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks
	rm -rf bench/results native/_datapath*.so native/_datapath.c native/_datapath.o native/fuzz/bin cni/stub/weft-cni
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
