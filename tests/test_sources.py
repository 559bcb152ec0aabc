"""Code as one of the things that a state is made from."""

import pytest

from persistworld.post_training.run import CODE
from persistworld.sources import code_digest, git_commit


@pytest.fixture
def package(tmp_path):
    (tmp_path / "part").mkdir()
    (tmp_path / "part/sum.py").write_text("def add(a, b):\n    return a + b\n")
    (tmp_path / "alone.py").write_text("FACTOR = 2\n")
    return tmp_path


OTHER = [("part/sum.py", "def add(a, b):\n    return a - b\n"), ("alone.py", "FACTOR = 3\n"), ("part/new.py", "")]


@pytest.mark.parametrize(("name", "text"), OTHER)
def test_other_code_is_another_digest(package, name, text):
    before = code_digest("part", "alone.py", package=package)
    (package / name).write_text(text)
    assert code_digest("part", "alone.py", package=package) != before


def test_remarks_and_other_modules_do_not_count(package):
    before = code_digest("part", package=package)
    (package / "part/sum.py").write_text("# Why.\ndef add(a, b):\n\n    return (a + b)  # so\n")
    (package / "alone.py").write_text("FACTOR = 3\n")
    assert code_digest("part", package=package) == before


def test_the_lists_name_what_is_there():
    parts = [code_digest(part) for part in CODE]
    assert code_digest() not in parts and len({*parts}) == len(CODE)


def test_without_git_there_is_no_commit(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_commit() is None
