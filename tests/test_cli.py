"""The command line as a user meets it: one clear line for a mistake, and nothing heavy before it is needed."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from refusals import assert_names

from persistworld.checkpoints.hub import KNOWN
from persistworld.cli import commands
from persistworld.tools import fetch

SCRIPT = Path(sys.executable).parent / "persistworld"
ROOT = Path(__file__).parents[1]
PARAMS = ROOT / "presets/tabletop.yaml"


def run(*args: str, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run([SCRIPT, *args], cwd=cwd, capture_output=True, text=True)


def with_change(folder: Path, section: str, key: str, value: object) -> None:
    params = yaml.safe_load(PARAMS.read_text())
    params[section][key] = value
    (folder / "params.yaml").write_text(yaml.safe_dump(params))


@pytest.mark.parametrize(
    ("section", "key", "value", "named"),
    [
        ("post_training", "candidats", 8, ("post_training.candidats", "'candidates'")),
        ("post_training", "candidates", "eight", ("post_training.candidates = 'eight'", "int")),
        ("post_training", "candidates", 1, ("post_training.candidates = 1", 2)),
        ("post_training", "keep", 99, ("post_training.keep = 99",)),
        ("post_training", "prefix", [0, 20], ("episodes.frames", "post_training.prefix")),
        ("evaluation", "protocol", "decode", ("evaluation.protocol = 'decode'", "decoded", "raw")),
        ("evaluation", "models", ["base", "post_traind"], ("evaluation.models = post_traind", "'post_trained'")),
    ],
)
def test_a_mistake_in_the_parameters_is_one_line(tmp_path, section, key, value, named):
    with_change(tmp_path, section, key, value)
    done = run("post-training", cwd=tmp_path)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("persistworld: error: params.yaml: ")
    assert_names(line, *named)
    assert list(tmp_path.iterdir()) == [tmp_path / "params.yaml"]


def test_missing_parameters_are_one_line(tmp_path):
    done = run("episodes", "--params", "nowhere.yaml", cwd=tmp_path)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("persistworld: error: nowhere.yaml: ")


@pytest.mark.parametrize(
    "args", [("latnts",), ("rollouts", "--seed", "0"), ("latents", "--shard", "x"), ("fetch", "sdv", "--output", "x")]
)
def test_a_mistake_on_the_command_line_is_one_line(tmp_path, args):
    done = run(*args, cwd=tmp_path)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("persistworld: error: ")


def test_help_lists_every_module_under_its_kind(tmp_path):
    done = run("--help", cwd=tmp_path)
    assert done.returncode == 0
    _, stages, tools = re.split(r"^(?:stages|tools)\b.*:$", done.stdout, flags=re.MULTILINE)
    for folder, listed in (("stages", stages), ("tools", tools)):
        names = {path.stem for path in (ROOT / "src/persistworld" / folder).glob("*.py")} - {"__init__"}
        assert names == set(re.findall(r"^  (\w+)  +\w", listed, re.MULTILINE))


def test_help_imports_nothing_heavy():
    heavy = ("torch", "numpy", "pandas", "matplotlib", "diffusers", "pybullet", "pyarrow", "snakemake")
    code = (
        "import sys, contextlib, persistworld.cli\n"
        "with contextlib.suppress(SystemExit): persistworld.cli.main(['--help'])\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_stages_without_a_model_do_not_import_its_libraries():
    libraries = ("diffusers", "transformers", "peft")
    light = ("base_checkpoint", "episodes", "manifest", "masks", "tables", "comparison")
    code = (
        f"import sys, importlib\nfor stage in {light}: importlib.import_module(f'persistworld.stages.{{stage}}')\n"
        f"print([name for name in {libraries} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_processes_of_a_job_share_its_threads():
    """Nine threads for four processes that torchrun started: two each."""
    code = "import os; from persistworld.cli import main; main(['defaults', '--threads', '9']); print(os.environ['OMP_NUM_THREADS'])"
    shared = os.environ | {"LOCAL_WORLD_SIZE": "4"}
    done = subprocess.run([sys.executable, "-c", code], cwd=PARAMS.parent, env=shared, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "2"


def test_fetch_knows_the_models_by_name():
    assert fetch.OPTIONS["name"]["choices"] == list(KNOWN)


def test_options_are_those_that_the_module_reads():
    """An option that a command reads from `args` is declared, and the other way round."""
    for command in commands():
        module = ast.parse((ROOT / f"src/persistworld/{command.kind}/{command.name}.py").read_text())
        read = {
            node.attr
            for node in ast.walk(module)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "args"
        }
        actions = [own for _, own in (value for value in command.options.values() if isinstance(value, tuple))]
        declared = {option.lstrip("-").replace("-", "_") for options in actions or [command.options] for option in options}
        assert read - {"threads", "params", *(["action"] if actions else [])} == declared, command.name
