"""Sizes that do not fit: frames that the autoencoder cannot divide, and latents of other views than the parameters name."""

from dataclasses import replace

import pytest
from made_up import encode_shard
from refusals import refused
from tiny import VIEWS

from persistworld.config.data import EpisodesConfig, LatentsConfig
from persistworld.data.latents import LatentStore

SETTINGS = EpisodesConfig(height=16, width=16, fps=5.0, views=VIEWS)


@pytest.mark.parametrize("source", ["encode", "recorded"])
@pytest.mark.parametrize(("key", "size", "fitting"), [("height", 18, 16), ("width", 15, 16), ("height", 1, 4)])
def test_frames_that_are_not_whole_cells_are_refused_before_any_is_read(autoencoder, tmp_path, source, key, size, fitting):
    settings, latents = replace(SETTINGS, **{key: size}), LatentsConfig(source=source)
    with refused(f"episodes.{key} = {size}", "4 pixels", fitting):
        encode_shard(None, [0], settings, latents, 4, autoencoder, 0, tmp_path / "shard-0.safetensors")
    assert not list(tmp_path.iterdir())


def test_latents_of_three_views_are_not_read_as_two(latent_folder):
    """The store's latents are 12 x 4: three views of 16 x 16 pixels, or of any other square."""
    for size in (16, 256):
        LatentStore(latent_folder, replace(SETTINGS, height=size, width=size))
    LatentStore(latent_folder, replace(SETTINGS, views=("left", "right", "hand")))  # names are a robot's own
    with refused("episodes.views = exterior_1, wrist", "12 x 4", "3 views", "16 x 16"):
        LatentStore(latent_folder, replace(SETTINGS, views=("exterior_1", "wrist")))
    with refused("1.5 views", "32 x 16"):
        LatentStore(latent_folder, replace(SETTINGS, height=32))
