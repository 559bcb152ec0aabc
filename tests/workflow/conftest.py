"""A finished workflow, for the tests that ask what the engines want next."""

import contextlib
import sys
from pathlib import Path

import pytest
from engines import ROOT, commit, copy_of_repository, make_placeholders, snakemake

sys.path.append(str(ROOT / "workflow"))
import record


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """A repository with a placeholder for each output, recorded by both engines and committed. Put back what you change."""
    folder = copy_of_repository(tmp_path_factory.mktemp("finished"))
    make_placeholders(folder)
    snakemake(folder, "--touch", "--forceall")
    with contextlib.chdir(folder):
        record.main()
    commit(folder, "run")
    return folder
