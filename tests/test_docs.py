"""Numbers in README.md and docs/results.md are those of the committed metrics; links lead somewhere."""

import re
import sys
from pathlib import Path

import pytest
from made_up import make_clone, stages

from persistworld.data.video import read_video

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.fixture
def tables(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(ROOT / "docs")
    import result_tables

    yield result_tables
    sys.modules.pop("result_tables")


@pytest.mark.parametrize("page", ["README.md", "docs/results.md"])
def test_result_tables_are_current(tables, page):
    text = (ROOT / page).read_text()
    assert tables.with_tables(text, page) == text, "run python docs/result_tables.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text):
        if target.startswith(("http://", "https://")):
            continue
        path, _, heading = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), f"{page.name}: {target}"
        if heading:
            titles = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            slugs = [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]
            assert heading in slugs, f"{page.name}: {target}"


def test_readme_is_short():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150 and len(text.split()) <= 1300


def test_the_readmes_python_example_runs(tmp_path, monkeypatch):
    [example] = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(make_clone(tmp_path))
    stages("episodes", "base_checkpoint", "latents --shard 0", "latents --shard 1", "manifest", "post_training")
    exec(compile(example, "README.md", "exec"), {})
    assert read_video("rollout.mp4").shape == (9, 16, 16, 3)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_that_a_page_names_is_there(page):
    """Files as `folder/module.py`, with `:name` for what they define; tests by file and function."""
    text, package = page.read_text(), ROOT / "src/persistworld"
    for path, name in re.findall(r"`([a-z_0-9/]+\.py)(?::(\w+)[\w.]*)?`", text):
        places = [folder / path for folder in (ROOT, package, ROOT / "tests", ROOT / "tests/workflow") if (folder / path).exists()]
        places += [] if "/" in path else package.rglob(path)
        assert places or "toy" in path, f"{page.name}: {path}"
        defined = rf"^\s*(?:class|def) {name}\b|^{name}\b"
        assert not name or re.search(defined, places[0].read_text(), re.MULTILINE), f"{page.name}: {path}:{name}"
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    for name in set(re.findall(r"\b(test_\w+)\b(?!\.py)", text)):
        assert f"def {name}(" in tests or list((ROOT / "tests").rglob(f"{name}.py")), f"{page.name}: {name}"


def test_the_end_of_make_run_counts_the_cells_of_the_committed_tables(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(ROOT / "workflow")
    import summary

    counts = [re.search(r"in (\d+) of (\d+) cells", line).groups() for line in summary.lines()]
    assert [int(total) for _, total in counts] == [6, 6, 12, 12]
    details = summary.read_json(summary.METRICS / "paired_details.json")
    gains = [details[f"post_trained_vs_{rival}"]["decoded"] for rival in summary.RIVALS]
    signs = {"ssim": 1, "psnr": 1, "lpips": -1}
    full = [sum(signs[m] * view["full"][m]["difference"]["mean"] > 0 for view in gain.values() for m in signs) for gain in gains]
    assert [int(better) for better, _ in counts[:2]] == full
