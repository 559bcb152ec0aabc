# make run: makes tables, figures and the report from a fresh clone. make test: runs the tests. Both need only Python 3.11, git and make.
PYTHON ?= python3
BIN := $(CURDIR)/.venv/bin
export PATH := $(BIN):$(PATH)
# If this variable is set, every job of the workflow byte-compiles torch and its libraries again, which takes half a minute each time.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test test-workflow dvc sync record keep lint bench lock

run: .venv/ready
	@$(BIN)/python workflow/run.py
	@$(MAKE) --no-print-directory record
	@$(BIN)/python workflow/summary.py
	@echo "tables: results/tables/   figures: results/figures/   report: results/report.html"

test: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal -m "not slow"

# Run both engines (Snakemake and DVC) on the real stages at a tiny size. Takes minutes.
test-workflow: .venv/ready
	$(BIN)/pytest -m slow

# Generate DVC's stages, and the values that they compare, from the rules. Other targets: make dvc TARGETS="all results/metrics/latent_credit.json"
TARGETS ?= all
dvc: .venv/ready
	$(BIN)/python workflow/dvc_yaml.py $(TARGETS)

# What was recorded: the default run, and those tables of the ablations that were made. (Evaluated when a recipe runs.)
PIPELINES = dvc.yaml $$($(BIN)/python workflow/recorded.py --stages)
RECORDED = all $$($(BIN)/python workflow/recorded.py)

# After `git checkout` and `dvc checkout`: tell Snakemake that the restored files are up to date with this commit's parameters.
sync: .venv/ready
	@test ! -e workflow/ablations/dvc.lock || $(BIN)/python workflow/dvc_yaml.py --check --ablations  # the values are not in the cache
	@$(BIN)/dvc status --quiet $(PIPELINES) || { $(BIN)/dvc status $(PIPELINES); echo "make sync: files and dvc.lock differ: dvc checkout, or dvc repro" >&2; exit 1; }
	$(BIN)/snakemake --touch --forceall --cores all --quiet host progress rules -- $(RECORDED)

# After running snakemake directly: record the outputs in DVC. (`make run` does this itself.)
# DVC may replace outputs by links to its cache, which changes their times: Snakemake is told that those are up to date. Others keep their
# times (no --forceall), or the ablations' runs that no row needs at present would be older than the data, and trained again.
record: .venv/ready
	$(BIN)/python workflow/record.py
	$(BIN)/snakemake --touch --cores all --quiet host progress rules -- $(RECORDED)

# Save this run's metrics and film strips in results/presets/, beside the other presets'.
keep:
	mkdir -p results/presets/$$(sed -n 's/^preset: *//p' params.yaml)
	cp $(addprefix results/metrics/,$(addsuffix .json,masks paired paired_details table_1 table_2)) results/figures/figure_3.png results/presets/$$(sed -n 's/^preset: *//p' params.yaml)

lint: .venv/ready
	$(BIN)/ruff check
	$(BIN)/snakefmt --check workflow
	$(BIN)/snakemake --lint

bench: .venv/ready
	$(BIN)/python -m benchmarks

# Pin exact versions in requirements.txt, from pyproject.toml.
lock: .venv/ready
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --no-annotate --upgrade -o requirements.txt

# Installing takes one minute with uv and two with pip. pip is the fallback if uv fails (for example if only pip has the package index).
.venv/ready: requirements.txt pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or later is needed: make PYTHON=python3.11 ...')"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements.txt || $(BIN)/python -m pip install --quiet -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch .venv/ready
