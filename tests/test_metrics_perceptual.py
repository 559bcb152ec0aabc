"""The perceptual distance against the `lpips` package, and the tabletop backbone's training and loading."""

import lpips
import numpy as np
import pytest
import torch
from refusals import refused
from safetensors.torch import save_file

from persistworld.evaluation.perceptual import (
    TABLETOP_FILE,
    PackageBackbone,
    PerceptualDistance,
    load_perceptual,
    package_heads,
)
from persistworld.evaluation.segmentation_backbone import CLASSES, SegmentationBackbone
from persistworld.training.perceptual import train_segmentation_backbone


@pytest.fixture(scope="module", params=["alex", "squeeze"])
def package(request):
    """The package's own network on random weights, and images in [-1, 1]."""
    torch.manual_seed(0)
    network = lpips.LPIPS(net=request.param, pretrained=False, pnet_rand=True, verbose=False)
    images = 2 * torch.rand(4, 3, 64, 72) - 1
    return network, images[:2], images[2:]


def test_with_linear_heads_it_equals_the_package(package):
    network, a, b = package
    ours = PerceptualDistance(PackageBackbone(network), package_heads(network))
    with torch.no_grad():
        assert torch.allclose(ours(a, b), network(a, b).flatten(), atol=1e-5)
        network.spatial = True
        expected = network(a, b)[:, 0]
        network.spatial = False
        assert torch.allclose(ours.spatial(ours.features(a), ours.features(b), (64, 72)), expected, atol=1e-5)


def test_without_heads_it_equals_the_package(package):
    network, a, b = package
    network.lpips = False
    with torch.no_grad():
        expected = network(a, b).flatten()
    network.lpips = True
    assert torch.allclose(PerceptualDistance(PackageBackbone(network))(a, b), expected, atol=1e-5)


def test_candidates_share_the_features_of_their_ground_truth():
    torch.manual_seed(1)
    distance = PerceptualDistance(SegmentationBackbone())
    truth, candidates = 2 * torch.rand(2, 3, 16, 24) - 1, 2 * torch.rand(6, 3, 16, 24) - 1
    together = distance(candidates, truth)
    apart = torch.cat([distance(candidates[2 * k : 2 * k + 2], truth) for k in range(3)])
    assert together.shape == (6,) and torch.allclose(together, apart, atol=1e-6)
    assert torch.allclose(distance(truth, truth), torch.zeros(2))
    assert torch.allclose(distance.to_target(candidates, distance.features(truth)), apart, atol=1e-6)
    maps = distance.spatial(distance.features(candidates), distance.features(truth), (16, 24))
    assert maps.shape == (6, 16, 24)


def test_training_learns_to_tell_robot_and_object_apart_and_is_deterministic():
    frames, labels = squares(64)
    network = train_segmentation_backbone(frames, labels, steps=60, seed=3)
    again = train_segmentation_backbone(frames, labels, steps=60, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))
    images = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        guess, truth = network.logits(images).argmax(dim=1), torch.from_numpy(labels).long()
    overlap = {name: ((guess == i) & (truth == i)).sum() / ((guess == i) | (truth == i)).sum() for i, name in enumerate(CLASSES)}
    assert overlap["robot"] > 0.5 and overlap["object"] > 0.4
    assert sum(parameter.numel() for parameter in network.parameters()) < 300_000


def squares(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Dark frames (24, 32) with a grey robot square and a coloured object square, and their labels."""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 40, size=(count, 24, 32, 3)).astype(np.uint8)
    labels = np.zeros((count, 24, 32), np.uint8)
    for frame, label in zip(frames, labels, strict=True):
        for kind, colour in ((1, (170, 170, 170)), (2, (220, 60, 30))):
            top, left = rng.integers(0, 16), rng.integers(0, 24)
            frame[top : top + 8, left : left + 8] = colour
            label[top : top + 8, left : left + 8] = kind
    return frames, labels


def test_the_tabletop_network_is_read_back_and_a_broken_file_is_one_clear_error(tmp_path):
    torch.manual_seed(2)
    network = SegmentationBackbone()
    save_file(network.state_dict(), tmp_path / TABLETOP_FILE)
    images = 2 * torch.rand(2, 3, 16, 24) - 1
    loaded = load_perceptual("tabletop", tmp_path)
    assert torch.equal(loaded(images[:1], images[1:]), PerceptualDistance(network)(images[:1], images[1:]))

    save_file({"other": torch.zeros(1)}, tmp_path / TABLETOP_FILE)
    with refused("perceptual.safetensors"):
        load_perceptual("tabletop", tmp_path)
    (tmp_path / TABLETOP_FILE).write_bytes(b"half")
    with refused("perceptual.safetensors"):
        load_perceptual("tabletop", tmp_path)
    (tmp_path / TABLETOP_FILE).unlink()
    with refused("perceptual.safetensors"):
        load_perceptual("tabletop", tmp_path)


def test_missing_package_weights_are_an_error_never_another_network(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def offline(*_args, **_kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with refused("metrics.lpips = alex", "alexnet"):
        load_perceptual("alex", tmp_path)
