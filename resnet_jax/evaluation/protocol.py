"""Protocols of evaluation: which views of an image a network sees.

Views of one shape go through the network together, see `resnet_jax.evaluation.batches`.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

from flax import linen as nn

from resnet_jax.checkpoints import Json
from resnet_jax.data import Interpolation, View
from resnet_jax.data.decoding.decode import check_interpolation
from resnet_jax.errors import InputError, unknown

ProtocolName = Literal["single_crop", "ten_crop", "multi_scale"]

SCALES = (224, 256, 384, 480, 640)
"""Pixels of the shorter sides, for networks of 224 pixels (He et al., section 3.4)."""


def five_crops(size: int, resize: int) -> tuple[View, ...]:
    """Returns the centre and the four corners (Krizhevsky et al., NIPS 2012, section 4.1).

    The corners are those of the whole resized image, as in torchvision's `FiveCrop` and in
    fb.resnet.torch; with the mirror image of each they are the standard ten crops.

    Raises:
      InputError: The resized image is not larger than the crops, which would all be the same.
    """
    if resize == size:
        raise InputError(
            f"ten crops are taken of images that are larger than a crop, and images resized to "
            f"{resize} pixels have one crop of {size}; resize them to more, such as "
            f"{-(-size * 8 // 7)}"
        )
    corners = (View(resize, size, *corner) for corner in itertools.product((0, 1), repeat=2))
    return (View(resize, size), *corners)


class Preparation(NamedTuple):
    """How images for evaluation are prepared for a network, unless a protocol says otherwise.

    Attributes:
      image_size: Height and width of the crop, in pixels.
      resize: Pixels of the shorter side before it.
      interpolation: How images are resampled.
    """

    image_size: int
    resize: int
    interpolation: Interpolation


@dataclasses.dataclass(frozen=True)
class Protocol:
    """A protocol of evaluation, for any network.

    "single_crop": the centre, as in the evaluations during training.

    "ten_crop": the centre, the four corners, and their mirror images (Krizhevsky et al., NIPS 2012,
    section 4.1), for the comparisons of the paper.

    "multi_scale": nearly the whole image at several scales, and its mirror images, for the paper's
    best results (section 3.4). The network is applied in its fully convolutional form: the layers
    behind the last maps at every position, the scores (before the softmax) averaged over the
    positions, as in VGG (Simonyan & Zisserman, section 3.2). At the size of its images it is the
    network as it was trained.

    Where there are several views, the probabilities (after the softmax) of views, mirror images and
    scales are averaged. A mean image is stretched to the size of the view.

    Attributes:
      name: The protocol.
      resize: Pixels of the shorter side before cropping; by default the network's.
      crop: Height and width of the crops, in pixels; by default those of the network's images.
      interpolation: How images are resampled; by default the network's.
      scales: Pixels of the shorter side, for each scale; by default the paper's, in proportion to
        the network's images: 224, 256, 384, 480 and 640 for those of 224.

    Raises:
      InputError: There is no such protocol or interpolation, or a number belongs to another one.
    """

    name: ProtocolName = "single_crop"
    resize: int | None = None
    crop: int | None = None
    interpolation: Interpolation | None = None
    scales: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if self.name not in get_args(ProtocolName):
            raise unknown("protocol of evaluation", self.name, get_args(ProtocolName))
        if self.interpolation is not None:
            check_interpolation(self.interpolation)
        if self.name == "multi_scale":
            if self.resize is not None or self.crop is not None:
                raise InputError(
                    "multi_scale takes whole images and no crops; give scales, not resize or crop"
                )
            if self.scales is not None and not self.scales:
                raise InputError("multi_scale has at least one scale")
        elif self.scales is not None:
            raise InputError(f"scales belong to multi_scale, and the protocol is {self.name}")

    @property
    def mirrored(self) -> bool:
        """Whether the mirror image of each view is seen too."""
        return self.name != "single_crop"

    @property
    def method(self) -> str | None:
        """The method of a network that is applied; None for its usual call."""
        return "fully_convolutional" if self.name == "multi_scale" else None

    @property
    def label(self) -> str:
        """Part of a file's name; empty for a single crop as in training."""
        numbers = (("resize", self.resize), ("crop", self.crop), ("", self.interpolation))
        parts = [f"{name}{value}" for name, value in numbers if value is not None]
        if self.name != "single_crop":
            parts.insert(0, self.name)
        return "-".join([*parts, *map(str, self.scales or ())])

    def views(self, preparation: Preparation) -> tuple[View, ...]:
        """Returns the views of an image for a network, without their mirror images.

        Raises:
          InputError: The crops do not fit into the resized images, or fill them.
        """
        size, resize, _ = preparation
        if self.name == "multi_scale":
            return tuple(map(View, self.scales or [round(s * size / SCALES[0]) for s in SCALES]))
        size = size if self.crop is None else self.crop
        resize = resize if self.resize is None else self.resize
        return five_crops(size, resize) if self.name == "ten_crop" else (View(resize, size),)

    def resampling(self, preparation: Preparation) -> Interpolation:
        """Returns how the images for a network are resampled."""
        return self.interpolation or preparation.interpolation

    def describe(self, preparation: Preparation) -> dict[str, Json]:
        """Returns the protocol and its numbers for a network, for JSON."""
        views = self.views(preparation)
        numbers: dict[str, Json] = {"resize": views[0].resize, "crop": views[0].size}
        if self.name == "multi_scale":
            numbers = {"scales": [view.resize for view in views]}
        return {
            "name": self.name,
            "views": len(views) * (1 + self.mirrored),
            **numbers,
            "interpolation": self.resampling(preparation),
        }

    def check(self, network: nn.Module) -> None:
        """Refuses with `InputError` a network without the fully convolutional form it needs."""
        if self.method is not None and not hasattr(network, self.method):
            raise InputError(
                "multi_scale needs a network with a fully convolutional form, and "
                f"{type(network).__name__} has none; ten_crop takes any network"
            )
