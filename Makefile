# Two commands matter: make demo and make test. make help lists the rest.

SHELL := bash
MAKEFLAGS += --no-builtin-rules --no-print-directory

# The tools see nothing of the user's settings, and leave nothing outside the checkout.
user_home := $(HOME)
unexport $(filter ANSIBLE_% COVERAGE_% FLEETOPS_% GALAXY_% LETTA_% MOLECULE_% PG% PYTEST_% PYTHON% QODER_% VIRTUAL_ENV XDG_%,$(.VARIABLES))
export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/.build/collections
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
export ANSIBLE_HOME := $(CURDIR)/.build
export HOME := $(CURDIR)/.home
export HYPOTHESIS_STORAGE_DIRECTORY := $(CURDIR)/.build/cache/hypothesis
export LC_ALL := $(if $(filter Darwin,$(shell uname)),en_US.UTF-8,C.UTF-8)
export no_proxy := 127.0.0.1,localhost,$(or $(no_proxy),$(NO_PROXY))
export NO_PROXY := $(no_proxy)
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export TMPDIR := $(CURDIR)/.build/tmp

run := tests/checks/run.sh
link := .build/collections/ansible_collections/fleetops/environments
linters := lint-ruff-check lint-ruff-format lint-mypy lint-ansible lint-changelog
workers := 3
# Long tests come last: a worker that has none left takes them from another.
pytest = pytest --numprocesses $(workers) --dist worksteal

.PHONY: help home venv chromium shells openssh postgresql demo demo-devices test check lint $(linters) sanity pytest test-unit test-integration test-e2e test-python test-molecule coverage test-matrix bench drift build ee docs changelog release-check clean

help:
	@echo 'make demo              install what is needed, then list and instruct a fleet in the sandbox'
	@echo 'make demo-devices      the same with two real devices in the fleet, which answer'
	@echo 'make test              every check and test: check, test-molecule, test-python'
	@echo 'make check             lint and sanity'
	@echo 'make lint              ruff, mypy, ansible-lint, changelog fragments'
	@echo 'make sanity            galaxy-importer, ansible-lint, antsibull-docs and ansible-test on the built collection'
	@echo 'make pytest            some tests (TESTS="tests/unit/test_mode.py -k offline")'
	@echo 'make test-unit         tests/unit, in about a minute'
	@echo 'make test-integration  tests/integration'
	@echo 'make test-e2e          tests/e2e, with real devices'
	@echo 'make test-molecule     extensions/molecule: the roles, with real devices too (SCENARIOS="instruct self_update" runs these alone)'
	@echo 'make test-python       tests/unit, tests/integration and tests/e2e'
	@echo 'make coverage          the same, and the share of plugins/ that they ran'
	@echo 'make test-matrix       sanity, unit and integration tests on every supported Python that is installed, and on the oldest ansible-core (PYTHONS="3.12 3.11/2.19.0")'
	@echo 'make bench             tests/benchmarks, into docs/performance.md (BENCH="--only play" measures a part, and shows it)'
	@echo 'make drift             what the newest letta, letta-client and qca-sdk have that the collection does not know'
	@echo 'make build             the collection as a tar.gz, in .build/dist'
	@echo 'make ee                an execution environment with the collection, where Podman or Docker runs (TAG=fleetops-ee)'
	@echo 'make docs              the pages of all plugins, in .build/docs/html'
	@echo 'make changelog         take the fragments into CHANGELOG.rst, under the version in galaxy.yml'
	@echo 'make release-check     whether the version in galaxy.yml can be released'
	@echo 'make venv              only the virtual environment, in .venv (PYTHON=... chooses the Python)'
	@echo 'make clean             remove everything that these commands made'

venv: home .venv/.ready $(link)

home:
	@tests/checks/home.sh '$(user_home)'

# A Python that is named is taken whatever stands there.
ifdef PYTHON
.PHONY: .venv/.ready
endif
.venv/.ready: requirements.txt tests/requirements.txt | home
	@PYTHON='$(PYTHON)' tests/checks/venv.sh

$(link):
	@mkdir -p $(@D) && ln -sfn ../../../.. $@

demo: venv
	@python -m tests.demo

demo-devices: venv
	@python -m tests.demo --real-devices 2

# Linters use one core, and molecule waits for its devices: they run side by side.
test: venv
	@$(MAKE) --jobs=2 user_home='$(user_home)' PYTHON= check test-molecule
	@$(MAKE) user_home='$(user_home)' PYTHON= test-python

check: lint sanity

# Every tool runs, also after one that found something. The inner make has the HOME and the Python of this one.
lint: venv
	@$(MAKE) --keep-going user_home='$(user_home)' PYTHON= $(linters)

lint-ruff-check: venv
	@$(run) 'ruff check' ruff check

lint-ruff-format: venv
	@$(run) 'ruff format' ruff format --check --diff

lint-mypy: venv
	@cd .build/collections && ../../$(run) mypy mypy --config-file ../../pyproject.toml

lint-ansible: venv
	@$(run) 'ansible-lint' ansible-lint --nocolor --profile production --offline

lint-changelog: venv
	@$(run) 'antsibull-changelog' antsibull-changelog lint

sanity: venv
	@tests/checks/artifact.sh

chromium: | home
	@tests/checks/chromium.sh

shells: | home
	@tests/checks/programs.sh 'which devices have in the tests of the connection plugin' zsh fish sudo busybox

openssh: | home
	@tests/checks/programs.sh 'which the connection plugin is measured against' sshd=openssh-server

postgresql: | home
	@tests/checks/postgresql.sh

.build/rulebook/.ready: requirements.txt tests/rulebook.txt | venv
	@tests/checks/rulebook.sh

test-e2e test-python coverage: chromium .build/rulebook/.ready
test-integration test-e2e test-python coverage test-matrix: shells
test-unit test-integration test-python coverage test-matrix bench: postgresql

# Its tests wait more than they work.
test-unit: workers := 4
test-unit test-integration test-e2e: test-%: venv
	@python -m $(pytest) tests/$*

test-python: venv
	@python -m $(pytest)

pytest: venv
	@python -m pytest $(TESTS)

# Molecule would take what an interrupted run has left for ready.
test-molecule: venv
	@rm -rf .build/tmp/molecule.*
	@NO_COLOR=1 TELL="Scenario '.+' completed" $(run) molecule molecule test --workers 2 --continue-on-failure \
		--no-command-borders $(if $(SCENARIOS),$(addprefix -s ,default $(SCENARIOS)),--all)

# Ansible ends its workers, and with them their coverage data, unless it is told to wait for them.
coverage: venv
	@rm -rf .build/coverage && mkdir -p .build/coverage
	@ANSIBLE_WORKER_SHUTDOWN_POLL_COUNT=100 ANSIBLE_WORKER_SHUTDOWN_POLL_DELAY=0.05 coverage run -m $(pytest)
	@coverage combine --quiet
	@coverage report

test-matrix: venv
	@PYTHONS='$(PYTHONS)' tests/checks/matrix.sh '$(user_home)'

bench: openssh venv
	@python -m tests.benchmarks $(BENCH)

drift: venv
	@python -m tests.checks.drift $(DRIFT)

build: venv
	@ansible-galaxy collection build --force --output-path .build/dist

ee: venv
	@TAG='$(TAG)' tests/checks/ee.sh

docs changelog release-check: %: venv
	@tests/checks/$(@:-check=).sh

clean:
	rm -rf .build .home .venv
