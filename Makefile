# Everything is done by these targets; each installs what it needs into .venv first (quick when nothing changed).
# `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
BIN := .venv/bin
TESTS ?= tests

.PHONY: help chart-docs demo install install-dev test test-gpu test-control-plane test-nodes e2e e2e-images cluster-binaries node-binaries node-packages check fmt docs bench soak e2e-soak wer verify lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: install ## speak a sentence into demo.wav
	$(BIN)/ttsfleet demo -o demo.wav

install: ## what the demo needs, into .venv
	@tools/install run

install-dev:
	@tools/install dev

test: install-dev ## all tests (TESTS=tests/llm for a part)
	@tools/check-layout
	$(BIN)/pytest $(TESTS) -m "not gpu and not real_nodes"

test-gpu: install-dev ## the tests that need a CUDA device
	$(BIN)/pytest $(TESTS) -m gpu

test-control-plane: install-dev cluster-binaries ## the tests on a real Kubernetes control plane
	$(BIN)/pytest $(or $(CONTROL_PLANE_TESTS),tests/control_plane)

test-nodes: node-binaries node-packages ## the tests on real Kubernetes nodes; as root (see docs/end-to-end.md)
	E2E_REQUIRED=1 $(BIN)/pytest $(or $(NODE_TESTS),tests/nodes)

e2e: node-binaries node-packages e2e-images ## install ttsfleet on real nodes and have it speak; as root (E2E_TESTS=...)
	@tools/install asr
	E2E_REQUIRED=1 $(BIN)/pytest $(or $(E2E_TESTS),tests/end_to_end)

e2e-images: install-dev node-binaries node-packages ## build both images for the nodes of the tests (cold about 8 minutes)
	@PYTHONPATH=e2e $(BIN)/python -m container_images.build

cluster-binaries: install-dev ## build etcd, Kubernetes, kwok, kubectl and helm for the tests (cold about 10 minutes)
	@PYTHONPATH=e2e $(BIN)/python -m control_plane.build

node-binaries: cluster-binaries ## build kubelet, kube-proxy and containerd as well (cold 2 minutes more)
	@PYTHONPATH=e2e $(BIN)/python -m control_plane.build nodes

node-packages: install-dev # runc, the CNI plugins and nftables from Debian, when they are missing
	@PYTHONPATH=e2e $(BIN)/python -m real_nodes.requirements

check: install-dev ## formatting, lint (the Dockerfiles too), types, layers, layout
	@tools/check-layout
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/hadolint Dockerfile.operator Dockerfile.runtime
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: install-dev ## format the code and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: install-dev ## write the generated documents
	$(BIN)/python -m ttsfleet_runtime.config.table > docs/engine-parameters.md
	$(BIN)/python -m ttsfleet_operator.api.crd
	$(BIN)/python -m ttsfleet_operator.api.reference > docs/ttsservice.md
	$(BIN)/python charts/generate.py

chart-docs: install-dev ## write what is generated around the chart (CRDs, table of values, manifests without Helm)
	$(BIN)/python charts/generate.py

bench: install-dev ## latency and throughput of the tiny voice here (BENCH_ARGS=...)
	tools/bench $(BENCH_ARGS)

soak: install-dev ## 1,000 mixed requests, then look for leaks (SOAK_ARGS=...)
	$(BIN)/python benchmarks/soak.py $(SOAK_ARGS)

e2e-soak: install-dev cluster-binaries ## the long runs on a control plane: 200 scalings, ten idle minutes, scale (E2E_SOAK_ARGS=...)
	PYTHONPATH=e2e $(BIN)/python benchmarks/control_plane_soak.py $(E2E_SOAK_ARGS)

wer: ## word error rate through the HTTP API, by a speech recogniser (WER_ARGS=...)
	@tools/install asr
	$(BIN)/python benchmarks/wer.py $(WER_ARGS)

verify: install-dev ## the golden cases through the production code (GOLDENS=DIR)
	$(BIN)/ttsfleet-runtime verify --goldens $(or $(GOLDENS),tests/goldens)

lock: ## write requirements/*.txt again (LOCK_ARGS=--upgrade for the newest versions)
	tools/lock $(LOCK_ARGS)

clean: ## remove .venv and the caches of the tools
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
