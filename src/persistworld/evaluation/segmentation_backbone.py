"""The perceptual network of the tabletop preset: a small segmentation network trained on the simulator's labels.

AlexNet's weights must be downloaded, and random features rank distortions wrongly. This network learns to segment
background, robot and object, and to predict the local colour. Its features therefore react to a lost object or gripper
and to a changed colour.
"""

import torch.nn.functional as F
from torch import Tensor, nn

CLASSES = ("background", "robot", "object")


class SegmentationBackbone(nn.Module):
    """Four stages (24, 48, 64, 96 channels; strides 1, 2, 2, 2) of 3x3 convolutions and ReLU, without normalisation
    layers; 0.24 M parameters.

    `forward` takes images (N, 3, H, W) in [-1, 1] and returns the outputs of the four stages, the feature maps of
    `PerceptualDistance`. 1x1 convolutions compute class scores and colours from all stages; only training needs them.
    """

    def __init__(self, channels: tuple[int, ...] = (24, 48, 64, 96)) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        previous = 3
        for index, width in enumerate(channels):
            first = nn.Conv2d(previous, width, 3, stride=1 if index == 0 else 2, padding=1)
            # One convolution at full resolution, because it is the most expensive there; two in every later stage.
            layers = (
                [first, nn.ReLU()]
                if index == 0
                else [first, nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
            )
            self.stages.append(nn.Sequential(*layers))
            previous = width
        self.class_heads = nn.ModuleList(nn.Conv2d(width, len(CLASSES), 1) for width in channels)
        self.colour_heads = nn.ModuleList(nn.Conv2d(width, 3, 1) for width in channels)
        for layer in self.stages.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> list[Tensor]:
        features = []
        hidden = images
        for stage in self.stages:
            hidden = stage(hidden)
            features.append(hidden)
        return features

    def logits(self, images: Tensor) -> Tensor:
        """Class scores (N, 3, H, W): the outputs of all stages' class heads, upsampled to full size and added."""
        return self.logits_of(self(images), images.shape[-2:])

    def logits_of(self, features: list[Tensor], size: tuple[int, int]) -> Tensor:
        """`logits` from feature maps that `forward` returned, at `size` = (H, W)."""
        scores = [head(feature) for head, feature in zip(self.class_heads, features, strict=True)]
        return sum(F.interpolate(score, size=size, mode="bilinear", align_corners=False) for score in scores)

    def colours_of(self, features: list[Tensor]) -> list[Tensor]:
        """Each stage's prediction of the local mean colour of the images in [-1, 1], (N, 3, h, w) at the stage's size."""
        return [head(feature) for head, feature in zip(self.colour_heads, features, strict=True)]


def local_colours(images: Tensor, features: list[Tensor]) -> list[Tensor]:
    """The targets of `colours_of`: the images (N, 3, H, W), average-pooled to the size of each feature map."""
    return [F.adaptive_avg_pool2d(images, feature.shape[-2:]) for feature in features]
