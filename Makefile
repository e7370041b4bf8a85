# Two commands are all the set-up there is: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo ems lab test coverage lint format docs reference site release release-trial test-python313 broken-requirements bench bench-compare bench-fleet peers simulate exhaustive acceptance-cluster acceptance-discipline acceptance-ems acceptance-firmware acceptance-loadtest acceptance-restore acceptance-month acceptance-polling fuzz mutate lock loadtest-scale acceptance-orders image image-trial
help:
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST)

# A stamp per lock file: nothing is installed twice, a changed lock is installed again.
$(VENV)/.run: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/.test: requirements-test.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --require-hashes -r requirements-test.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	touch $@ $(VENV)/.run

# What the privacy lab needs on top; its lock is made under the tests' pins, so both fit into one environment.
$(VENV)/.lab: requirements-lab.lock $(VENV)/.test
	$(BIN)/pip install --quiet --require-hashes -r requirements-lab.lock
	touch $@

# Energy management: charge points and their libraries, in the same environment for the same reason.
$(VENV)/.ems: requirements-ems.lock $(VENV)/.test
	$(BIN)/pip install --quiet --require-hashes -r requirements-ems.lock
	touch $@

ems: $(VENV)/.ems ## the six options of energy management, measured (10 min; EMS="ems-1a --duration-s 30")
	$(BIN)/stromkreis scenario $(or $(EMS),ems)

lab: $(VENV)/.lab .venv-peers-flower/.ready ## the privacy lab: every scheme, what everybody learns (LAB="--households 60 --days 2")
	$(BIN)/stromkreis lab run $(LAB)

acceptance-discipline: $(VENV)/.lab ## what rosters of a coordinator's choice tell of a household (10 min; DISCIPLINE="--households 300 --days 3")
	$(BIN)/python -m loadtest.lab.acceptance $(DISCIPLINE)

demo: $(VENV)/.run ## a neighbourhood on this machine (GATEWAYS=1000, ROUNDS=, PERIOD_S=, SEED=, OUT=, KEEP=1)
	$(BIN)/stromkreis demo $(if $(GATEWAYS),--gateways $(GATEWAYS)) $(if $(ROUNDS),--rounds $(ROUNDS)) \
	  $(if $(PERIOD_S),--period-s $(PERIOD_S)) $(if $(SEED),--seed $(SEED)) $(if $(OUT),--out $(OUT)) $(if $(KEEP),--keep)

lint: $(VENV)/.test ## style, types and the layer rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tools.sizes

format: $(VENV)/.test ## let ruff lay the code out
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: ## renew the pins (needs uv)
	for part in "" "-test --extra test"; do set -- $$part; uv pip compile pyproject.toml --extra demo --extra build --extra postgresql --extra pkcs11 \
	  $$2 $$3 --universal --python-version 3.11 --no-strip-extras --no-emit-index-url --no-header --generate-hashes -q -o requirements$$1.lock; done
	uv pip compile pyproject.toml --extra postgresql --extra pkcs11 --constraint requirements.lock --universal --python-version 3.11 \
	  --no-strip-extras --no-emit-index-url --no-header --generate-hashes -q -o requirements-image.lock
	for extra in fuzz mutation site; do uv pip compile pyproject.toml --extra $$extra --universal --python-version 3.11 --no-strip-extras \
	  --no-emit-index-url --no-header --generate-hashes -q -o requirements-$$extra.lock; done
	for extra in lab ems; do uv pip compile pyproject.toml --extra $$extra --constraint requirements-test.lock --universal \
	  --python-version 3.11 --no-strip-extras --no-emit-index-url --no-header --generate-hashes -q -o requirements-$$extra.lock; done

# Software that nobody here wrote, for the interoperability tests; an environment each, since their pins contradict.
PEERS := sml dlms mbus p1 flower
PEERS_313 := ppc theben
peers: $(PEERS:%=.venv-peers-%/.ready) $(PEERS_313:%=.venv-peers-%/.ready) .venv-peers-npm/.ready ## the environments of the interoperability tests' peers
$(PEERS_313:%=.venv-peers-%/.ready): .venv-peers-%/.ready: requirements-peers-%.lock $(VENV)/.test
	.ci/peer313 $*
.venv-peers-%/.ready: requirements-peers-%.lock
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet --require-hashes -r $<
	touch $@

# Packages of npm, held to their digests; nothing of them is run when they are installed.
.venv-peers-npm/.ready: tests/interop/npm/package-lock.json
	mkdir -p $(@D) && cp tests/interop/npm/package.json tests/interop/npm/package-lock.json $(@D)
	cd $(@D) && npm ci --silent --ignore-scripts --no-audit --no-fund
	touch $@

# What proves the heart runs first and once, with coverage; then the others.
# Whatever measures gets a core to itself; a test that waits for rounds hardly needs one, so two of those share it.
PYTEST := $(BIN)/pytest -n auto --dist worksteal -q
WAITING = $(PYTEST:auto=$(shell $(BIN)/python -c "import os; print(min(16, 2 * os.cpu_count()))"))
coverage: $(VENV)/.test ## the DC-net's unit and property tests: every branch of protocol/dcnet, or it fails
	$(PYTEST) tests/unit/test_dcnet_*.py tests/property/test_dcnet_*.py tests/attacks --cov=protocol.dcnet --cov-branch \
	  --cov-report=term-missing:skip-covered --cov-fail-under=100

test: $(VENV)/.test $(VENV)/.lab $(VENV)/.ems peers coverage ## every test, in parallel
	$(PYTEST) --ignore-glob='tests/unit/test_dcnet_*.py' --ignore-glob='tests/property/test_dcnet_*.py' --ignore=tests/attacks \
	  --ignore=tests/integration --ignore=tests/browser --ignore=tests/cluster
	$(PYTEST) tests/integration tests/browser tests/cluster -m "not rounds"
	$(WAITING) tests/integration tests/cluster -m rounds

BENCH_PEERS := flower sml mbus
bench: $(VENV)/.test $(BENCH_PEERS:%=.venv-peers-%/.ready) ## every figure beside the peers', into docs/reference/benchmarks.md (QUICK=1, NAMES=)
	$(BIN)/python -m loadtest.bench $(NAMES) $(if $(QUICK),--quick)

bench-fleet: $(VENV)/.test ## up to 10,000 gateways in rings of 64, every one with its own CURVE connections (GATEWAYS="256 10000")
	$(BIN)/python -m loadtest.bench.fleet $(if $(GATEWAYS),--gateways $(GATEWAYS))

OLD ?= a4c5f14
bench-compare: $(VENV)/.test ## this tree against an earlier commit, in pairs: ratios with intervals (OLD=commit, PAIRS=9, GATEWAYS=1000)
	$(BIN)/python -m loadtest.bench.compare $(OLD) $(if $(PAIRS),--pairs $(PAIRS)) $(if $(GATEWAYS),--gateways $(GATEWAYS))

exhaustive: $(VENV)/.test ## all that a lying head can show to small rings, and 10^7 samples for rings up to 16
	$(BIN)/python -m loadtest.exhaustive

acceptance-orders: $(VENV)/.test ## every order of messages and restarts, also in a ring of five (half an hour)
	STROMKREIS_EVERY_RING=1 $(BIN)/pytest -n auto -q tests/simulation/test_dcnet_every_order.py

acceptance-firmware: $(VENV)/.test ## a node that updates itself, and goes back from a release that does not start (2 min)
	STROMKREIS_EVERY_UPDATE=1 $(BIN)/pytest -q -s tests/integration/test_firmware_rollout.py -k updates_itself

acceptance-cluster: $(VENV)/.test ## every fault of a cluster on pods that run, and what each costs (wants root; ten minutes)
	STROMKREIS_EVERY_FAULT=1 $(BIN)/pytest -q -s -m rounds tests/cluster

acceptance-loadtest: $(VENV)/.test ## every load test but the steady ones, and that each finds a planted watt hour (wants root; half an hour)
	STROMKREIS_EVERY_SCENARIO=1 $(BIN)/pytest -q -s tests/integration/test_loadtest.py

SIZES ?= 100 1000 3000 10000
loadtest-scale: $(VENV)/.run ## steady load tests of several sizes, into docs/scale.md; goes on where it was stopped (wants the machine; SIZES="100 1000")
	$(BIN)/stromkreis loadtest series $(SIZES) --into docs/scale.md

acceptance-polling: $(VENV)/.test ## clients that poll a gateway every second: 72 hours on an injected clock, and a real hour (POLLING_S=3600)
	STROMKREIS_POLLING_S=$(or $(POLLING_S),3600) $(BIN)/pytest -q -s tests/integration/test_han_polling.py \
	  tests/unit/test_han_login.py::test_72_hours_of_polling_every_second_keep_memory_flat

acceptance-restore: $(VENV)/.run ## stores, volumes and a coordinator lost and put back on a living network of processes
	$(BIN)/python -m loadtest.restore

acceptance-month: $(VENV)/.run ## a month of TAF 1, 2, 6, 7 of 500 gateways beside a day of rings, with faults (MONTH="out/month --gateways 1000 --tafs 7")
	$(BIN)/python -m loadtest.month $(or $(MONTH),out/month)

acceptance-ems: $(VENV)/.ems ## energy management in real time: all six, 1 h of 1a, values each 5 and 15 min, failsafe after 120 s, 1a by display intervals (four hours)
	$(BIN)/stromkreis scenario ems --out out/ems
	$(BIN)/stromkreis scenario ems-1a --duration-s 3600 --out out/ems-hour
	$(BIN)/stromkreis scenario ems-1c ems-2c --cut-s 150 --out out/ems-failsafe
	for values in 5min 15min; do $(BIN)/stromkreis scenario ems-1b --emp-values $$values --out out/ems-$$values || exit 1; done
	for display in 60 900; do $(BIN)/stromkreis scenario ems-1a --display-s $$display --out out/ems-1a-$$display || exit 1; done

SIMULATE ?= --loss 0.01 --duplicate 0.05 --delay-s 0.1 --crash 0.02 --clog 0.3
simulate: $(VENV)/.run ## rings under faults (SIMULATE="--liar cunning"), until stopped or until a seed breaks something
	$(BIN)/stromkreis simulate --seeds 0 $(SIMULATE)

# atheris instruments what it runs and so wants an environment of its own.
CODECS := sml hdlc dlms mbus wmbus iec62056-21 p1 p1-encrypted
SECONDS ?= 60
.venv-fuzz/.ready: requirements-fuzz.lock
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet --require-hashes -r $<
	touch $@

image: ## the container images, built without a registry (wants root, buildah, debootstrap; TARGETS="stromkreis stromkreis-meters")
	.ci/image $(TARGETS)

image-trial: $(VENV)/.test image ## build the images and run a small network from them (wants root)
	STROMKREIS_IMAGES=1 $(BIN)/pytest -q tests/cluster/test_image.py

fuzz: .venv-fuzz/.ready ## each meter codec on atheris, one after the other (CODECS="sml p1", SECONDS=1800)
	for codec in $(CODECS); do .venv-fuzz/bin/python -m fuzz $$codec -max_total_time=$(SECONDS) || exit 1; done

.venv-mutation/.ready: requirements-mutation.lock
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet --require-hashes -r $<
	touch $@

mutate: .venv-mutation/.ready ## change member, head and ledger in one place at a time: tests notice, or docs/explanation/mutation.toml says why not (MUTATE="--file head.py --sample 200")
	.venv-mutation/bin/python -m mutation $(MUTATE)

broken-requirements: $(VENV)/.test ## a sample of TR-03109 requirements broken one at a time: the test that shows each fails (five minutes; NAMES=)
	$(BIN)/python -m tools.broken_requirements $(NAMES)

docs: $(VENV)/.test reference ## what the documentation takes from the code: diagrams, layers, reference pages
	$(BIN)/python -m loadtest.diagrams --into docs/explanation/protocol.md
	$(BIN)/python -m tools.layers --into CONTRIBUTING.md
	$(BIN)/python -m tools.conformance --into docs/reference/conformance.md

reference: $(VENV)/.test ## write docs/reference/{configuration,metrics,rest,cli,messages,han}.md anew
	$(BIN)/python -m tools.reference

.venv-site/.ready: requirements-site.lock
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet --require-hashes -r $<
	touch $@

# Mermaid comes from npm when the site is built, held to its digest, so that who reads the site asks no network for it.
MERMAID := 11.17.2
MERMAID_SHA512 := 57a2b70bc101744b0f1595d228c25eea9a50384371b87011afd1af1d7e21878ee501b84c443f6a7f8a042bb2e869143150b31af34feab798073bbdda0a578106
.venv-site/mermaid-$(MERMAID).min.js: .venv-site/.ready
	cd $(@D) && npm pack --silent mermaid@$(MERMAID) >/dev/null
	echo "$(MERMAID_SHA512)  $(@D)/mermaid-$(MERMAID).tgz" | sha512sum --check --quiet
	tar -xzOf $(@D)/mermaid-$(MERMAID).tgz package/dist/mermaid.min.js > $@.part && mv $@.part $@

site: .venv-site/mermaid-$(MERMAID).min.js ## the documentation with an API reference, into out/site
	MERMAID_JS=$(CURDIR)/$< NO_MKDOCS_2_WARNING=1 PYTHONPATH=. .venv-site/bin/mkdocs build --quiet --strict

release: $(VENV)/.test ## version, changelog, sdist and wheel tried in an empty environment, commit and tag (VERSION=0.2.0)
	$(BIN)/python -m tools.release $(VERSION)

release-trial: $(VENV)/.test ## build sdist and wheel of the present version and run both in an empty environment
	$(BIN)/python -m tools.release --try

test-python313: $(VENV)/.test ## unit and property tests on Python 3.13, in a root of Debian trixie (wants root)
	.ci/python313 $(BIN)/python
