"""LPIPS: the distance between images in the feature space of a network (Zhang et al. 2018).

`metrics.lpips` selects the backbone: AlexNet, VGG or SqueezeNet of the `lpips` package with its linear heads, or
`tabletop`, the small segmentation network that is part of the tabletop base checkpoint. Values of different backbones are
not comparable, and one backbone never replaces another.
"""

import contextlib
import io
import urllib.error
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from persistworld.evaluation.segmentation_backbone import SegmentationBackbone
from persistworld.runtime.errors import UserError

TABLETOP_FILE = "perceptual.safetensors"  # in the base checkpoint's folder
PACKAGE_BACKBONES = {"alex": "alexnet", "vgg": "vgg16", "squeeze": "squeezenet1_1"}  # our name -> torchvision's


class PerceptualDistance(nn.Module):
    """The sum over layers of the spatial mean of squared differences of channel-normalised features, weighted by linear
    heads if there are any.

    backbone: images (N, 3, H, W) in [-1, 1] -> list of (N, C_l, h_l, w_l). heads: one (C_l,) weight per layer, or None
    (all weights 1). The parameters are frozen. Gradients reach the images if the images require them.
    """

    def __init__(self, backbone: nn.Module, heads: list[Tensor] | None = None, name: str = "") -> None:
        super().__init__()
        self.backbone = backbone
        self.name = name
        self.has_heads = heads is not None
        for index, head in enumerate(heads or []):
            self.register_buffer(f"head_{index}", head.detach().reshape(-1, 1, 1))
        self.eval().requires_grad_(False)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def features(self, images: Tensor) -> list[Tensor]:
        """Feature maps of images (N, 3, H, W) in [-1, 1], each normalised to unit length over its channels."""
        return [
            feature / (feature.square().sum(dim=1, keepdim=True).sqrt() + 1e-10) for feature in self.backbone(images)
        ]

    def distance(self, fa: list[Tensor], fb: list[Tensor]) -> Tensor:
        """LPIPS (N,) between features of N images and features of M ground-truth images.

        N is a multiple of M, candidate-major: image k * M + m is compared with ground truth m.
        """
        return sum(difference.mean(dim=(1, 2)) for difference in self._differences(fa, fb))

    def spatial(self, fa: list[Tensor], fb: list[Tensor], size: tuple[int, int]) -> Tensor:
        """The distance at every pixel, (N, H, W) for `size` = (H, W): the layers' maps, upsampled bilinearly and added."""
        return self.distance_and_map(fa, fb, size)[1]

    def distance_and_map(self, fa: list[Tensor], fb: list[Tensor], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """`distance` and `spatial` from the same feature differences, which are computed once."""
        maps = self._differences(fa, fb)
        whole = sum(m.mean(dim=(1, 2)) for m in maps)
        return whole, sum(F.interpolate(m[:, None], size=size, mode="bilinear", align_corners=False)[:, 0] for m in maps)

    def to_target(self, images: Tensor, fb: list[Tensor]) -> Tensor:
        """LPIPS (N,) of images (N, 3, H, W) in [-1, 1] to M ground-truth images with the features `fb`.

        Candidate-major like `distance`. One candidate (M images) is processed at a time, so that its features stay in the
        CPU cache. On a CPU this is twice as fast as all candidates at once.
        """
        return torch.cat([self.distance(self.features(part), fb) for part in images.split(fb[0].shape[0])])

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """LPIPS (N,) between images (N, 3, H, W) and (M, 3, H, W) in [-1, 1]."""
        return self.distance(self.features(a), self.features(b))

    def _differences(self, fa: list[Tensor], fb: list[Tensor]) -> list[Tensor]:
        maps = []
        for index, (a, b) in enumerate(zip(fa, fb, strict=True)):
            squared = (a.reshape(-1, *b.shape) - b).square().flatten(0, 1)
            maps.append((squared * getattr(self, f"head_{index}") if self.has_heads else squared).sum(dim=1))
        return maps


def load_perceptual(name: str, checkpoint_folder: str | Path) -> PerceptualDistance:
    """The perceptual distance that `metrics.lpips` names: alex, vgg, squeeze, or tabletop (from the base checkpoint's
    folder).

    Raises UserError when the name is unknown or the weights are not available. There is no fallback to another network.
    """
    if name in PACKAGE_BACKBONES:
        return PerceptualDistance(*_package_network(name), name=name)
    if name == "tabletop":
        return PerceptualDistance(load_segmentation_backbone(Path(checkpoint_folder) / TABLETOP_FILE), name=name)
    raise UserError(f"metrics.lpips = {name!r}: choose from {', '.join(PACKAGE_BACKBONES)}, tabletop")


def load_segmentation_backbone(path: Path) -> SegmentationBackbone:
    """Read a segmentation network from a safetensors file. Raises UserError when the file is missing, broken or holds
    another network.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    advice = "fetch the base checkpoint again, or name another backbone in metrics.lpips"
    if not path.is_file():
        raise UserError(f"{path}: no such file; {advice}")
    network = SegmentationBackbone()
    try:
        network.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        raise UserError(
            f"{path}: not the tabletop perceptual network ({' '.join(str(error).split())[:200]}); {advice}"
        ) from None
    return network.eval()


class PackageBackbone(nn.Module):
    """A network of the `lpips` package with its input scaling: images (N, 3, H, W) in [-1, 1] -> list of feature maps."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.scaling, self.trunk = network.scaling_layer, network.net

    def forward(self, images: Tensor) -> list[Tensor]:
        return list(self.trunk(self.scaling(images)))


def package_heads(network: nn.Module) -> list[Tensor]:
    """The linear heads of an `lpips.LPIPS` network, one (C_l,) weight per layer."""
    return [layer.model[-1].weight.flatten() for layer in network.lins]


def _package_network(name: str) -> tuple[PackageBackbone, list[Tensor]]:
    import lpips

    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")  # the package calls torchvision with a deprecated argument
            network = lpips.LPIPS(net=name, verbose=False)
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise UserError(
            f"metrics.lpips = {name}: torchvision's {PACKAGE_BACKBONES[name]} weights are neither in {folder} nor "
            f"to be downloaded ({' '.join(str(error).split())}); put the file there, or name another backbone"
        ) from None
    return PackageBackbone(network), package_heads(network)
