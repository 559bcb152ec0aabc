"""Which code made something: so that a result says so, and what was left unfinished is never taken up by other code."""

import ast
import hashlib
import subprocess
from pathlib import Path

PACKAGE = Path(__file__).parent


def code_digest(*parts: str, package: Path = PACKAGE) -> str:
    """A short hash of modules (`optimizers.py`) and of all modules in folders (`world_model`) of the package.

    Comments and layout do not count: a run of days must not be lost to a remark.
    """
    files = sorted(file for part in parts for file in ([package / part] if part.endswith(".py") else (package / part).rglob("*.py")))
    trees = [f"{file.relative_to(package)} {ast.dump(ast.parse(file.read_text(encoding='utf-8')))}" for file in files]
    return hashlib.sha256("\n".join(trees).encode()).hexdigest()[:16]


def git_commit() -> str | None:
    """The commit of the working directory, or None outside a repository, or without git."""
    try:
        return subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip() or None
    except FileNotFoundError:
        return None
