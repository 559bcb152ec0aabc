"""The environment files: their versions are those of requirements.txt, and they hold what the code imports."""

import ast
import importlib
import re
import sys
from collections import Counter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WHOLE, STAGES, ROBOENGINE = (ROOT / name for name in ("environment.yml", "workflow/envs/persistworld.yml", "workflow/envs/roboengine.yml"))
ON_PYPI = {"pytorch": "torch", "msgpack-python": "msgpack"}  # conda-forge's name -> PyPI's


def dependencies(path: Path) -> list[str]:
    """The conda packages, then those that pip installs."""
    listed = yaml.safe_load(path.read_text())["dependencies"]
    return [each for item in listed for each in (item["pip"] if isinstance(item, dict) else [item])]


def pinned(path: Path) -> dict[str, str]:
    """PyPI's name -> version."""
    found = (re.fullmatch(r"([a-z0-9._-]+)==?([0-9][^=]*)", each) for each in dependencies(path))
    return {ON_PYPI.get(match[1], match[1]): match[2] for match in found if match and match[1] != "python"}


@pytest.mark.parametrize("path", [WHOLE, STAGES, ROBOENGINE], ids=lambda path: path.name)
def test_each_package_is_listed_once(path):
    names = Counter(re.split(r"[=<>]", each)[0] for each in dependencies(path))
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize("path", [WHOLE, STAGES], ids=lambda path: path.name)
def test_versions_are_those_of_requirements(path):
    locked = dict(re.findall(r"^([a-z0-9._-]+)==([^\s;]+)", (ROOT / "requirements.txt").read_text(), re.M))
    versions = pinned(path)
    assert len(versions) > 20
    assert {name: version for name, version in versions.items() if locked.get(name) != version} == {}


def test_the_stages_environment_holds_what_they_import():
    """Pages and clients of policy servers are tools, which no rule calls."""
    distributions, lacking = packages_distributions(), {}
    listed = {*pinned(STAGES), "pillow", "tokenizers", "persistworld", "huggingface-hub"}  # the second to fourth come with the others
    for path in (ROOT / "src/persistworld").rglob("*.py"):
        folder = path.relative_to(ROOT / "src/persistworld").parts[0]
        if folder in ("apps", "tools") or path.name in ("openpi.py", "groot.py", "remote.py", "roboengine.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            named = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            for top in {name.partition(".")[0] for name in named} - sys.stdlib_module_names:
                if not listed & {each.lower().replace("_", "-") for each in distributions.get(top, [top])}:
                    lacking.setdefault(top, path.name)
    assert lacking == {}


def test_modules_that_the_scripts_of_environments_name_exist():
    named = {name for path in (ROOT / "workflow/envs").glob("*.sh") for name in re.findall(r"persistworld(?:\.\w+)+", path.read_text())}
    assert named
    for name in named:
        importlib.import_module(name)
