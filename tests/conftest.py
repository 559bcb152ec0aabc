"""Fixtures that the tests share: a world model, an autoencoder, a perceptual network, latents of a few episodes."""

import pytest
import torch
from safetensors.torch import save_file
from tiny import FRAMES, HISTORY_INDEX, INSTRUCTIONS, SIZES, make_model, random_latents, random_poses

from persistworld.data.latents import LatentStore
from persistworld.data.manifest import Entry
from persistworld.data.windows import WindowSource
from persistworld.evaluation.perceptual import PerceptualDistance
from persistworld.evaluation.segmentation_backbone import SegmentationBackbone
from persistworld.world_model.autoencoder import Autoencoder
from persistworld.world_model.model import WorldModel


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: minutes rather than seconds; left out by: pytest -m 'not slow'")
    torch.set_num_threads(1)  # one order of summation, and other jobs keep their cores


@pytest.fixture(scope="session")
def base() -> WorldModel:
    """Not to be changed; use `make_model` for one that is."""
    return make_model(0)


@pytest.fixture(scope="session")
def autoencoder() -> Autoencoder:
    torch.manual_seed(1)
    return Autoencoder(SIZES.autoencoder).eval().requires_grad_(False)


@pytest.fixture(scope="session")
def perceptual() -> PerceptualDistance:
    torch.manual_seed(2)
    return PerceptualDistance(SegmentationBackbone((4, 4, 8, 8)))


@pytest.fixture(scope="session")
def entries() -> tuple[Entry, ...]:
    return tuple(Entry(i, "train", words, None, FRAMES) for i, words in enumerate(INSTRUCTIONS))


@pytest.fixture(scope="session")
def latent_folder(tmp_path_factory):
    """Two shards, as the stage `latents` writes them."""
    folder = tmp_path_factory.mktemp("latents")
    for shard in (0, 1):
        tensors = {}
        for episode in range(shard, len(INSTRUCTIONS), 2):
            tensors[str(episode)] = random_latents(episode)
            tensors[f"{episode}.poses"] = torch.from_numpy(random_poses(episode))
        save_file(tensors, folder / f"shard-{shard}.safetensors")
    return folder


@pytest.fixture(scope="session")
def store(latent_folder) -> LatentStore:
    return LatentStore(latent_folder)


@pytest.fixture(scope="session")
def windows(store, entries) -> WindowSource:
    return WindowSource(store, entries, HISTORY_INDEX)
