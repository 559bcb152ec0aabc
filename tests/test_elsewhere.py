"""A data set outside of the repository: recorded, followed, and refused when it is gone or another."""

import json

import pytest
from refusals import refused
from test_processed import write

from persistworld.config.data import EpisodesConfig
from persistworld.data.elsewhere import RECORD, fingerprint, follow, write_record
from persistworld.data.formats import open_episodes


@pytest.fixture
def place(tmp_path):
    """A data set of two episodes and the folder that records it."""
    dataset, record = write(write(tmp_path / "set", "7"), "199", "val"), tmp_path / "data/episodes"
    (record / "meta").mkdir(parents=True)  # simulated episodes of an earlier run
    (record / "meta/info.json").write_text("{}")
    write_record(dataset, 2, record)
    return dataset, record


def test_the_record_is_one_small_file_that_is_followed(place):
    dataset, record = place
    assert [path.name for path in record.iterdir()] == [RECORD]
    assert json.loads((record / RECORD).read_text()) == {
        "path": str(dataset), "episodes": 2, "index_sha256": fingerprint(dataset),
    }  # fmt: skip
    assert open_episodes(record).root == dataset and open_episodes(record).indices() == [7, 199]


def test_a_data_set_that_is_gone_or_another_is_one_line(place):
    dataset, record = place
    write(dataset, "8")
    with refused("source.json", "--forcerun episodes"):
        open_episodes(record)
    dataset.rename(dataset.with_name("moved"))
    with refused(f"episodes.path = {dataset}", "source.json"):
        follow(record)


def test_the_fingerprint_is_of_the_index_alone(tmp_path):
    (tmp_path / "meta/episodes").mkdir(parents=True)
    (tmp_path / "meta/info.json").write_text("{}")
    (tmp_path / "meta/episodes/file-000.parquet").write_bytes(b"abc")
    first = fingerprint(tmp_path)
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/0.mp4").write_bytes(b"film")
    assert fingerprint(tmp_path) == first
    (tmp_path / "meta/episodes/file-000.parquet").write_bytes(b"abd")
    assert fingerprint(tmp_path) != first


def test_a_data_set_in_the_workflows_own_folder_is_refused_before_it_is_replaced():
    with refused("episodes.path = data/episodes"):
        EpisodesConfig(source="folder", path="data/episodes").check()
    EpisodesConfig(source="simulate", path="data/episodes").check()
