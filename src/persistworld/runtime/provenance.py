"""Identifies the code that made a result: the modules that a stage imports, a hash of them, and the git commit.

Snakemake's inputs, DVC's deps and the digest that guards a resumed run all use `code_files`, so they always agree.
"""

import ast
import functools
import hashlib
import subprocess
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
# Modules that do not change results: messages, the page before a run, progress, locks, file locations.
# Also the parameters, whose values the engines compare.
NO_RESULT = (
    "config",
    "preflight",
    *("runtime." + name for name in ("errors", "files", "holding", "lifeline", "memory", "progress", "provenance", "workspace")),
)


def code_files(module: str, package: Path = PACKAGE) -> list[Path]:
    """The files that `module` (such as "stages.scores") runs: itself and all modules of the package that it imports, also indirectly.

    Returns sorted paths below the package's folder, including data files beside a module. Imports inside functions count.
    The package's own `__init__`, which only forwards names, and `NO_RESULT` are left out.
    """
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found or any(name == left or name.startswith(f"{left}.") for left in NO_RESULT):
            continue
        found.add(name)
        waiting += _imported(_path(package, name), package)
        if "." in name:
            waiting.append(name.rpartition(".")[0])
    modules = {_path(package, name) for name in found}
    beside = {file for path in modules for file in path.parent.iterdir() if file.is_file() and file.suffix not in (".py", ".pyc")}
    return sorted(modules | beside)


def code_digest(module: str, package: Path = PACKAGE) -> str:
    """A short hash of `code_files(module)`. It ignores comments, docstrings and layout, so that editing them discards no long run."""
    texts = [f"{file.relative_to(package)} {_content(file)}" for file in code_files(module, package)]
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


def git_commit() -> str | None:
    """The git commit of the working directory. None outside a repository or without git."""
    try:
        return subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip() or None
    except FileNotFoundError:
        return None


def _path(package: Path, name: str) -> Path:
    """The file of a module or package. `name` is relative to the package (`data.formats`)."""
    stem = package.joinpath(*name.split("."))
    return stem / "__init__.py" if stem.is_dir() else stem.with_suffix(".py")


def _imported(path: Path, package: Path) -> tuple[str, ...]:
    """The package's modules that a file imports, by `from package.x import y` or `import package.x`."""
    names = _imported_names(path.read_text(encoding="utf-8"))
    below = {name.removeprefix(f"{package.name}.") for name in names if name.startswith(f"{package.name}.")}
    return tuple(sorted(name for name in below if _path(package, name).is_file()))


@functools.cache  # keyed by content: the workflow asks for every stage, and stages share most modules
def _imported_names(source: str) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


def _content(file: Path) -> str:
    if file.suffix != ".py":
        return hashlib.sha256(file.read_bytes()).hexdigest()
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)
