"""Results travel by git and a DVC remote, here a folder, as docs/dvc_remote.md says; outputs are placeholders."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_workflow import copy_of_repository, dvc, outputs, snakemake

MANIFEST, CHECKPOINT = "data/manifest.json", "checkpoints/post_trained/placeholder"


def git(folder: Path, *args: str) -> None:
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    subprocess.run(["git", *identity, *args], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A machine's clone with every output made, recorded, committed and pushed."""
    clone = copy_of_repository(tmp_path_factory.mktemp("first"))
    for row in outputs(clone):
        path = clone / row["output_file"]
        path = path if path.suffix else path / "placeholder"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}" if path.suffix == ".json" else row["output_file"])
    dvc("commit", "--force", "--quiet", cwd=clone)
    dvc("remote", "add", "--default", "group", str(tmp_path_factory.mktemp("remote")), cwd=clone)
    git(clone, "add", "--all")
    git(clone, "commit", "--quiet", "--message", "run")
    dvc("push", "--quiet", cwd=clone)
    return clone


def test_another_machine_has_every_result_and_nothing_to_do(first, tmp_path):
    second = tmp_path / "second"
    git(tmp_path, "clone", "--quiet", str(first), str(second))
    assert not (second / MANIFEST).exists()
    dvc("pull", "--quiet", cwd=second)
    assert dvc("status", "--json", cwd=second).strip() == "{}"
    snakemake("--touch", "--forceall", cwd=second)  # what `make sync` does
    assert "Nothing to be done" in snakemake("--dry-run", cwd=second)


def test_some_stages_alone_are_pulled(first, tmp_path):
    second = tmp_path / "second"
    git(tmp_path, "clone", "--quiet", str(first), str(second))
    dvc("pull", "--quiet", "post_training", cwd=second)
    assert (second / CHECKPOINT).exists()
    assert not (second / "data/latents").exists()


def test_hard_links_spare_the_copy_and_a_stage_run_again_leaves_the_cache_alone(first, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    second = tmp_path / "second"
    git(tmp_path, "clone", "--quiet", str(first), str(second))
    dvc("config", "--local", "cache.type", "hardlink", cwd=second)
    dvc("pull", "--quiet", cwd=second)
    base = second / "checkpoints/base/placeholder"
    assert base.stat().st_nlink == 2 and not os.stat(base).st_mode & 0o222
    snakemake("--forcerun", "base_checkpoint", "--until", "base_checkpoint", cwd=second)
    assert (second / "checkpoints/base/config.json").is_file() and not base.exists()
    dvc("checkout", "--force", "--quiet", "base_checkpoint", cwd=second)
    assert base.read_text() == "checkpoints/base"
