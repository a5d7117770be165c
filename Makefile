# What people do here. `make help` lists it. Host packages are asked for first; YES=1 agrees beforehand.
PYTHON := python3
BIN := .venv/bin
export YES

.PHONY: help setup images demo demo-power-cut demo-down test unit e2e certificates chaos check proto lock bench bench-traffic wheels engine-up engine-down clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup:  ## packages of the host (asks first), .venv, a Docker Engine that answers
	@$(PYTHON) -m deploy.setup --engine

images:  ## setup, every image of the local cluster, and the tests' tools in .cache/bin
	@$(PYTHON) -m deploy.setup --images

demo: images  ## a whole cluster here: the example runs, a node and the leader are killed
	@$(PYTHON) -m deploy.demo up

demo-power-cut: images  ## a host of the demo loses its power under load, second by second; VS=swarm: Swarm's too
	@$(BIN)/python -m deploy.power_cut $(if $(VS),--vs $(VS))

demo-down:  ## end the demo's cluster and remove all it had
	@$(PYTHON) -m deploy.demo down

test: images  ## every test, on the cluster of docker-compose.yml and on bare hosts too
	@$(BIN)/python -m deploy.all_tests

unit: images  ## tests without the cluster; HAProxy comes from the nodes' image
	$(BIN)/pytest --ignore=tests/e2e

e2e: images  ## tests on the cluster of docker-compose.yml
	$(BIN)/pytest tests/e2e

certificates: images  ## ten minutes of certificates that live two, and another root, under pods that run
	BAYPLAN_CERTIFICATE_LIFE=2m BAYPLAN_CERTIFICATE_MINUTES=$(or $(MINUTES),10) $(BIN)/pytest tests/e2e/test_certificates.py

chaos: .venv/.lock  ## many seeds of random faults on a simulated cluster; SEEDS=500
	BAYPLAN_SEEDS=$(or $(SEEDS),500) $(BIN)/pytest -q --timeout=0 tests/simulation/test_chaos.py

check: .venv/.lock  ## lint, format, types, import contracts, stubs up to date
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy .
	$(BIN)/lint-imports
	@$(BIN)/python -m deploy.stubs --check

proto: .venv/.lock  ## regenerate bayplan/v1 from proto/
	@$(BIN)/python -m deploy.stubs

lock: .venv/.lock  ## resolve requirements.lock and requirements-dev.lock again
	@$(BIN)/python -m deploy.lock

bench: images  ## measure the cluster, then traffic; figures go to bench/results
	$(BIN)/python -m bench.cluster $(BENCH)
	$(BIN)/python -m bench.traffic $(TRAFFIC)

bench-traffic: images  ## the second part of it alone
	$(BIN)/python -m bench.traffic $(TRAFFIC)

wheels: .venv/.lock  ## bayplan and bayplan-client, into dist/
	@$(BIN)/python -m deploy.wheels

engine-up: setup  ## a Docker Engine that answers

engine-down:  ## stop the Docker Engine that setup started here, if it did
	@$(PYTHON) -m deploy.engine down

clean: demo-down  ## the demo, our own engine with its data, the caches and the environment
	@$(PYTHON) -m deploy.engine clean
	@rm -rf .cache .venv dist build

.venv/.lock: requirements-dev.lock pyproject.toml
	@$(PYTHON) -m deploy.setup
