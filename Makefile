# make run: a fresh clone to tables, figures and report. make test: the tests. Python 3.11, git and make are all they need.
PYTHON ?= python3
BIN := $(CURDIR)/.venv/bin
export PATH := $(BIN):$(PATH)
# Where it is set, each of the workflow's jobs compiles torch and its libraries again, half a minute each time.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test test-workflow dvc sync record keep lint bench lock

run: .venv/ready
	@$(BIN)/python workflow/run.py
	@$(MAKE) --no-print-directory record
	@$(BIN)/python workflow/summary.py
	@echo "tables: results/tables/   figures: results/figures/   report: results/report.html"

test: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal -m "not slow"

# Both engines on the real stages at a tiny size: minutes.
test-workflow: .venv/ready
	$(BIN)/pytest -m slow

# DVC's stages from the rules, and the values that they compare. Other targets: make dvc TARGETS="all paper_setting"
TARGETS ?= all
dvc: .venv/ready
	$(BIN)/python workflow/dvc_yaml.py $(TARGETS)

# After `git checkout` and `dvc checkout`: tell Snakemake that the restored files are what this commit's parameters make.
sync: .venv/ready
	@$(BIN)/dvc status --quiet || { $(BIN)/dvc status; echo "make sync: files and dvc.lock differ: dvc checkout, or dvc repro" >&2; exit 1; }
	$(BIN)/snakemake --touch --forceall --cores all --quiet host progress rules

# After a direct run of snakemake: tell DVC. (`make run` does it by itself.)
# DVC makes new links to what it keeps, so Snakemake is told afterwards that nothing is newer than what was made from it.
record: .venv/ready
	$(BIN)/python workflow/record.py
	$(BIN)/snakemake --touch --forceall --cores all --quiet host progress rules

# Put this run's metrics and film strips beside those of other presets.
keep:
	mkdir -p results/presets/$$(sed -n 's/^preset: *//p' params.yaml)
	cp $(addprefix results/metrics/,$(addsuffix .json,masks paired paired_details table_1 table_2)) results/figures/figure_3.png results/presets/$$(sed -n 's/^preset: *//p' params.yaml)

lint: .venv/ready
	$(BIN)/ruff check
	$(BIN)/snakefmt --check workflow
	$(BIN)/snakemake --lint

bench: .venv/ready
	$(BIN)/python -m benchmarks

# The exact versions in requirements.txt, made from pyproject.toml.
lock: .venv/ready
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --no-annotate --upgrade -o requirements.txt

# uv installs in a minute what pip takes two for; where it cannot (an index that only pip is configured for), pip does.
.venv/ready: requirements.txt pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or later is needed: make PYTHON=python3.11 ...')"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements.txt || $(BIN)/python -m pip install --quiet -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch .venv/ready
