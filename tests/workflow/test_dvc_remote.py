"""Results travel by git and a DVC remote, here a folder, as docs/dvc_remote.md says; outputs are placeholders."""

import os
from pathlib import Path

import pytest
from engines import dvc, dvc_status, git, planned, snakemake

MANIFEST, CHECKPOINT = "data/manifest.json", "checkpoints/post_trained/placeholder"


@pytest.fixture(scope="module")
def first(finished, tmp_path_factory) -> Path:
    """A machine's clone with every output made, recorded, committed and pushed; the remote is a folder."""
    clone = tmp_path_factory.mktemp("first") / "clone"
    git(finished, "clone", "--quiet", str(finished), str(clone))
    dvc(clone, "cache", "dir", "--local", str(finished / ".dvc/cache"))
    dvc(clone, "remote", "add", "--default", "group", str(tmp_path_factory.mktemp("remote")))
    git(clone, "commit", "--quiet", "--all", "--message", "remote")
    dvc(clone, "push", "--quiet")
    return clone


@pytest.fixture
def second(first, tmp_path) -> Path:
    """Another machine's clone of it."""
    git(first, "clone", "--quiet", str(first), str(tmp_path / "second"))
    assert not (tmp_path / "second" / MANIFEST).exists()
    return tmp_path / "second"


def test_another_machine_has_every_result_and_nothing_to_do(second):
    dvc(second, "pull", "--quiet")
    assert dvc_status(second) == {}
    snakemake(second, "--touch", "--forceall")  # what `make sync` does
    assert planned(second) == set()


def test_some_stages_alone_are_pulled(second):
    dvc(second, "pull", "--quiet", "post_training-post_trained")
    assert (second / CHECKPOINT).exists()
    assert not (second / "data/latents").exists()


def test_hard_links_spare_the_copy_and_a_stage_run_again_leaves_the_cache_alone(second):
    dvc(second, "config", "--local", "cache.type", "hardlink")
    dvc(second, "pull", "--quiet", "base_checkpoint")
    base = second / "checkpoints/base/placeholder"
    assert base.stat().st_nlink == 2 and not os.stat(base).st_mode & 0o222
    snakemake(second, "--force", "checkpoints/base")
    assert (second / "checkpoints/base/config.json").is_file() and not base.exists()
    dvc(second, "checkout", "--force", "--quiet", "base_checkpoint")
    assert base.read_text() == "checkpoints/base"
