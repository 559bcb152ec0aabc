"""Imports run one way: no cycles among files or packages, late imports and imports for types alone included."""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import persistworld

PACKAGE = Path(persistworld.__file__).parent
ROOT = PACKAGE.parents[1]
FACADE = "__init__"  # the package's own module forwards names lazily and is imported with every module


def modules(package: Path) -> dict[str, Path]:
    """Name relative to the package -> file."""
    return {".".join(path.relative_to(package).with_suffix("").parts).removesuffix(".__init__"): path for path in package.rglob("*.py")}


def imports(package: Path) -> dict[str, set[str]]:
    """Module -> the package's modules that it imports anywhere in its file."""
    files = modules(package)
    graph: dict[str, set[str]] = {}
    for name, path in files.items():
        named = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: relative import"
                named |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            elif isinstance(node, ast.Import):
                named |= {alias.name for alias in node.names}
        below = {each.removeprefix(f"{package.name}.") for each in named if each.startswith(f"{package.name}.")}
        graph[name] = (below & files.keys()) - {name}
    return {name: found for name, found in graph.items() if name != FACADE}


def folders(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """The same graph among the folders of the package. A module at the top stands for itself."""
    result: dict[str, set[str]] = {}
    for name, found in graph.items():
        own = name.partition(".")[0]
        result.setdefault(own, set()).update({each.partition(".")[0] for each in found} - {own})
    return result


def in_order(graph: dict[str, set[str]]) -> list[str]:
    """The nodes, each after those that it imports. Raises CycleError."""
    return list(TopologicalSorter(graph).static_order())


def test_no_cycle_among_files():
    graph = imports(PACKAGE)
    assert len(graph) > 100 and "config.checks" in graph["config.params"]
    in_order(graph)


def test_no_cycle_among_folders():
    in_order(folders(imports(PACKAGE)))


def test_folders_are_in_the_order_that_contributing_names():
    """Each folder is named, and imports only what stands before it. Nothing imports stages or tools."""
    line = next(line for line in (ROOT / "CONTRIBUTING.md").read_text().splitlines() if "Imports run one way" in line)
    named = re.findall(r"`(\w+)`", line)
    below = folders(imports(PACKAGE))
    assert set(named) == {name for name in below if (PACKAGE / name).is_dir()}
    for place, name in enumerate(named):
        assert below[name] <= set(named[:place]), name


@pytest.mark.parametrize("late", ["from pack.b import b", "def f():\n    import pack.b", "if TYPE_CHECKING:\n    from pack import b"])
def test_a_late_cycle_is_found(tmp_path, late):
    package = tmp_path / "pack"
    package.mkdir()
    (package / "a.py").write_text(late)
    (package / "b.py").write_text("from pack.a import f")
    with pytest.raises(CycleError):
        in_order(imports(package))
