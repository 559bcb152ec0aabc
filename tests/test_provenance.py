"""Which code a stage runs, and the digest of it."""

import pytest

from persistworld.runtime.provenance import code_digest, code_files, git_commit


@pytest.fixture
def package(tmp_path):
    """stages.one -> part.sum -> part.deep; beside them a module that nothing imports, and one that changes no result."""
    files = {
        "stages/__init__.py": "",
        "stages/one.py": "import pack.runtime.errors\nfrom pack.part import sum\n",
        "part/__init__.py": "",
        "part/sum.py": "def add(a, b):\n    from pack.part.deep import ONE\n    return a + b * ONE\n",
        "part/deep.py": "ONE = 1\n",
        "part/alone.py": "TWO = 2\n",
        "part/words.json": "{}",
        "runtime/__init__.py": "",
        "runtime/errors.py": "",
    }
    for name, text in files.items():
        path = tmp_path / "pack" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "pack"


def test_code_is_the_import_closure(package):
    found = [str(path.relative_to(package)) for path in code_files("stages.one", package)]
    named = ["part/__init__.py", "part/deep.py", "part/sum.py", "part/words.json", "stages/__init__.py", "stages/one.py"]
    assert [name for name in found if not name.startswith("runtime")] == named
    assert "runtime/errors.py" not in found


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("part/deep.py", "ONE = 2\n"),
        ("part/__init__.py", "import os\n"),
        ("part/words.json", "{1}"),
        ("stages/one.py", "from pack.part import alone\n"),
    ],
)
def test_other_code_is_another_digest(package, name, text):
    before = code_digest("stages.one", package)
    (package / name).write_text(text)
    assert code_digest("stages.one", package) != before


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("part/sum.py", '# Why.\ndef add(a, b):\n    """Adds."""\n    from pack.part.deep import ONE\n\n    return (a + b * ONE)\n'),
        ("part/alone.py", "TWO = 3\n"),
        ("runtime/errors.py", "class Error(Exception): pass\n"),
    ],
)
def test_remarks_and_other_modules_do_not_count(package, name, text):
    before = code_digest("stages.one", package)
    (package / name).write_text(text)
    assert code_digest("stages.one", package) == before


def test_scores_do_not_depend_on_how_they_are_printed():
    found = {path.parent.name for path in code_files("stages.scores")}
    assert "evaluation" in found and not found & {"paper", "post_training", "training"}


def test_without_git_there_is_no_commit(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_commit() is None
