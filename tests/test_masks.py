"""Masks: the simulator's labels, RoboEngine's adapter against its published signatures, the file and the counts."""

import json
import sys
import textwrap
from argparse import Namespace

import numpy as np
import pytest
import torch
from refusals import refused

from persistworld.config.data import EpisodesConfig, MasksConfig
from persistworld.config.params import Params
from persistworld.config.world_model import RolloutConfig
from persistworld.data.episodes import BadEpisode, Episode
from persistworld.data.manifest import Entry, Manifest, save_manifest
from persistworld.evaluation.mask_sources import open_mask_source
from persistworld.evaluation.masks import MaskStore, ViewMasks, empty_frames, labels_of
from persistworld.evaluation.recorded_masks import SimulatorMasks, resize_labels
from persistworld.evaluation.roboengine import RoboEngineMasks
from persistworld.runtime.errors import UserError
from persistworld.stages.base_training import training_labels
from persistworld.world_model.poses import PoseStatistics

VIEWS = ("exterior_1", "wrist")
SETTINGS = EpisodesConfig(source="folder", height=4, width=6, fps=5.0, views=VIEWS)


class Recorded:
    """Three episodes in memory, 10 frames at 10 fps, 8 x 12 pixels; the right half is red, the left half green."""

    views, fps = VIEWS, 10.0
    instructions = ("put the cube in the bowl", "", "move")

    def __init__(self, labels=None):
        self.labels, self.reads = labels, 0

    def indices(self):
        return [0, 1, 2]

    def episode(self, index):
        return Episode(index, self.instructions[index], self.fps, np.zeros((10, 7), np.float32), None, None, None)

    def frame_batches(self, index, view, stride, batch):
        frames = np.zeros((10, 8, 12, 3), np.uint8)
        frames[:, :, :6, 1], frames[:, :, 6:, 0] = 255, 255
        frames[:, 0, 0, 2] = index
        yield frames[::stride]

    def masks(self, index):
        return self.labels


# RoboEngine's names, signatures and return values, with colours in the place of networks.
ENGINE = '''
from enum import Enum
from pathlib import Path
import numpy as np

LOG = Path(__file__).with_name("calls.txt")

class SegmentationCue(Enum):
    points: str = "points"
    prompts: str = "prompts"

class RoboEngineRobotSegmentation:
    def __init__(self, sam_versoin="", sam_tokenizer_version="", image_size=224, device="cuda"):
        assert device in ("cpu", "cuda")

    def gen_video(self, image_np_list, prompt="robot", anchor_frequency=8, preset_masks=None):
        assert anchor_frequency == 1 and prompt == "robot" and isinstance(image_np_list, list)
        assert all(f.dtype == np.uint8 and f.ndim == 3 for f in image_np_list)
        with LOG.open("a") as log:
            log.write(f"{len(image_np_list)}\\n")
        return np.stack([(f[..., 0] > 128).astype(np.float32) for f in image_np_list])

class RoboEngineObjectSegmentation:
    def __init__(self, sam_versoin="", sam_tokenizer_version="", image_size=224, device="cuda",
                 segmentation_cue=SegmentationCue.points):
        assert segmentation_cue is SegmentationCue.prompts

    def gen_video(self, image_np_list, instruction=None, anchor_frequency=8, preset_masks=None, verbose=False):
        if instruction == "break":
            raise ValueError("another matter")
        if "cube" not in instruction:
            raise ValueError(f"No noun of objects get from the instruction [{instruction}].")
        return np.stack([(f[..., 1] > 128).astype(np.float32) for f in image_np_list])
'''


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """RoboEngine's module on sys.path; returns the file that counts the frames of each call."""
    monkeypatch.delitem(sys.modules, "robo_engine.infer_engine", raising=False)
    monkeypatch.delitem(sys.modules, "robo_engine", raising=False)
    package = tmp_path / "site/robo_engine"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "infer_engine.py").write_text(textwrap.dedent(ENGINE))
    monkeypatch.syspath_prepend(str(package.parent))
    yield package / "calls.txt"
    for name in ("robo_engine.infer_engine", "robo_engine"):
        sys.modules.pop(name, None)


def recorded_labels():
    labels = np.zeros((10, 2, 8, 12), np.uint8)
    labels[:, 0, :4] = 1
    labels[:, 0, :2, :2] = 2
    labels[4:, 1, :, 6:] = 1
    return labels


def test_simulator_masks_are_thinned_and_resized_without_new_classes():
    source = SimulatorMasks(Recorded(recorded_labels()), SETTINGS)
    found = source.masks(0, "exterior_1")
    assert found.robot.shape == (5, 4, 6) and found.robot.dtype == torch.bool
    assert found.manipulated[0].nonzero().tolist() == [[0, 0]] and found.robot[0].sum() == 2 * 6 - 1
    wrist = source.masks(0, "wrist")
    assert wrist.robot.flatten(1).any(-1).tolist() == [False, False, True, True, True]
    assert SimulatorMasks(Recorded(recorded_labels()), SETTINGS, frames=2).masks(0, "wrist").robot.shape[0] == 2


def test_nearest_resize_agrees_with_indexing():
    labels = torch.randint(0, 3, (2, 6, 10), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(resize_labels(labels, 3, 5), labels[:, 1::2, 1::2])  # the pixel at each cell's centre
    assert torch.equal(resize_labels(labels, 12, 20), labels.repeat_interleave(2, 1).repeat_interleave(2, 2))


def test_training_labels_lie_as_the_frames_do():
    """In the order of `episodes.views`, whichever order the recording has, and at the frames' rate and size."""
    settings = Params(episodes=EpisodesConfig(source="folder", height=4, width=6, fps=5.0, views=("wrist", "exterior_1")))
    labels = training_labels(settings, Recorded(recorded_labels()), [0, 2])
    wrist, exterior = labels.unflatten(0, (2, 2, 5))[1]
    assert labels.shape == (20, 4, 6) and wrist.flatten(1).any(-1).tolist() == [False, False, True, True, True]
    assert exterior[0, 0, 0] == 2 and (exterior == 1).sum() == 5 * 11
    with refused("episode 0", "perceptual_steps"):
        training_labels(settings, Recorded(), [0])


def test_episode_without_recorded_masks_is_named():
    with refused("episode 1", kind=BadEpisode):
        SimulatorMasks(Recorded(), SETTINGS).masks(1, "wrist")


def test_object_wins_over_robot_and_empty_frames_are_counted():
    robot = torch.ones(3, 2, 2, dtype=torch.bool)
    manipulated = torch.zeros(3, 2, 2, dtype=torch.bool)
    manipulated[0, 0, 0] = True
    labels = labels_of([ViewMasks(robot, manipulated), ViewMasks(~robot, ~manipulated)])
    assert labels.shape == (3, 2, 2, 2) and labels[0, 0].tolist() == [[2, 1], [1, 1]]
    assert empty_frames(labels, 1) == [0, 3] and empty_frames(labels, 2) == [2, 0]


def test_roboengine_batches_frames_and_reports_what_it_could_not_ask(engine, tmp_path):
    source = RoboEngineMasks(Recorded(), SETTINGS, batch=2, cache=tmp_path / "cache")
    found = source.masks(0, "exterior_1")
    assert found.status == "masked" and found.robot.shape == (5, 4, 6)
    assert torch.equal(found.robot, ~found.manipulated) and found.robot[:, :, 3:].all()
    assert engine.read_text().split() == ["2", "2", "1"]
    silent, wordless = source.masks(1, "wrist"), source.masks(2, "wrist")
    assert (silent.status, wordless.status) == ("no_instruction", "no_noun")
    assert not silent.manipulated.any() and silent.robot.any() and wordless.robot.any()


def test_roboengine_takes_up_where_it_stopped(engine, tmp_path):
    first = RoboEngineMasks(Recorded(), SETTINGS, batch=8, cache=tmp_path / "cache").masks(0, "wrist")
    calls = engine.read_text()
    again = RoboEngineMasks(Recorded(), SETTINGS, batch=8, cache=tmp_path / "cache").masks(0, "wrist")
    assert engine.read_text() == calls and torch.equal(first.robot, again.robot) and again.status == "masked"
    RoboEngineMasks(Recorded(), SETTINGS, batch=8, cache=tmp_path / "cache").masks(2, "wrist")
    assert engine.read_text() != calls  # other frames, other words: segmented


def test_another_value_error_is_not_taken_for_a_missing_noun(engine, tmp_path):
    episodes = Recorded()
    episodes.instructions = ("break",) * 3
    with pytest.raises(ValueError, match="another matter"):
        RoboEngineMasks(episodes, SETTINGS, batch=8, cache=tmp_path / "cache").masks(0, "wrist")


def test_missing_roboengine_is_said_in_a_line():
    settings = Params(masks=MasksConfig(source="roboengine"))
    with refused("robo_engine", "workflow/envs/roboengine.yml"):
        open_mask_source(settings, Recorded(), None)


def stage(folder, monkeypatch, source):
    """Run the stage in `folder` over the three episodes with 5 frames each at 5 fps."""
    from persistworld.stages import masks

    monkeypatch.chdir(folder)
    monkeypatch.setattr(masks, "open_episodes", lambda path: Recorded(recorded_labels()))
    entries = tuple(Entry(i, "validation", words, None, 5) for i, words in enumerate(Recorded.instructions))
    statistics = PoseStatistics("euler", (0.0,) * 7, (1.0,) * 7)
    save_manifest(Manifest(entries, {}, statistics, {}), "data/manifest.json", 5)
    settings = Params(
        episodes=SETTINGS, masks=MasksConfig(source=source), rollout=RolloutConfig(chunks=1)
    )
    masks.main(settings, Namespace())
    return MaskStore("data/masks.safetensors"), json.loads((folder / "results/metrics/masks.json").read_text())


def test_stage_counts_what_is_empty(tmp_path, monkeypatch):
    store, metrics = stage(tmp_path, monkeypatch, "simulator")
    assert store.source == "simulator" and store.masks(2).shape == (5, 2, 4, 6) and store.masks(0).dtype == torch.uint8
    assert metrics == {
        "episodes": 3, "frames": 15, "episodes_without_instruction": 1, "episodes_without_noun": 0,
        "empty_robot_exterior_1": 0, "empty_robot_wrist": 6, "empty_object_exterior_1": 0, "empty_object_wrist": 15,
    }  # fmt: skip
    with refused("episode 7"):
        store.masks(7)
    written = (tmp_path / "data/masks.safetensors").read_bytes()
    for _ in range(3):  # equal masks are equal files
        stage(tmp_path, monkeypatch, "simulator")
        assert (tmp_path / "data/masks.safetensors").read_bytes() == written


def test_stage_with_roboengine(engine, tmp_path, monkeypatch):
    store, metrics = stage(tmp_path, monkeypatch, "roboengine")
    assert store.source == "roboengine" and set(store.masks(0).unique().tolist()) == {1, 2}
    assert (metrics["episodes_without_instruction"], metrics["episodes_without_noun"]) == (1, 1)
    assert metrics["empty_object_wrist"] == 10 and metrics["empty_robot_wrist"] == 0


def test_stage_without_masks(tmp_path, monkeypatch):
    store, metrics = stage(tmp_path, monkeypatch, "none")
    assert store.source == "none" and metrics["episodes"] == 0
    with pytest.raises(UserError, match="source: none"):
        store.masks(0)


def test_missing_file_is_a_user_error(tmp_path):
    with refused(tmp_path / "masks.safetensors"):
        MaskStore(tmp_path / "masks.safetensors")
