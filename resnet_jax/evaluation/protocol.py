"""Protocols of evaluation: which views of an image a network sees."""

import dataclasses
from collections.abc import Sequence
from typing import Literal, NamedTuple, cast, get_args

from flax import linen as nn

from resnet_jax.checkpoints import Json
from resnet_jax.data import Interpolation
from resnet_jax.data.decoding.decode import check_interpolation
from resnet_jax.errors import InputError, unknown
from resnet_jax.evaluation.views import Centre, Scale, View, five_crops

ProtocolName = Literal["single_crop", "ten_crop", "multi_scale"]

SCALES = (224, 256, 384, 480, 640)
"""Pixels of the shorter sides, for networks of 224 pixels (He et al., section 3.4)."""


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


class Shown(NamedTuple):
    """How images are shown to a network.

    Attributes:
      views: The views; the scores of an image are their mean.
      mirrored: Whether the mirror image of each view is seen too.
      interpolation: How images are resampled.
      fully_convolutional: Whether the network is applied in that form.
      description: The protocol and its numbers, for JSON.
    """

    views: tuple[View, ...]
    mirrored: bool
    interpolation: Interpolation
    fully_convolutional: bool
    description: dict[str, Json]


@dataclasses.dataclass(frozen=True)
class Protocol:
    """A protocol of evaluation, whatever the network.

    "single_crop": the centre, as in the evaluations during training.

    "ten_crop": the centre, the four corners, and their mirror images (Krizhevsky et al., NIPS 2012,
    section 4.1), for the comparisons of the paper.

    "multi_scale": nearly the whole image at several scales, and its mirror images, for the paper's
    best results (section 3.4). The network is applied in its fully convolutional form, its
    method `fully_convolutional`: the layers behind the last maps at every position, the
    scores (before the softmax) averaged over the positions, as in VGG (Simonyan & Zisserman,
    section 3.2). At the size of its images it is the network as it was trained.

    Where there are several views, the probabilities (after the softmax) of views, mirror images and
    scales are averaged. A mean image is stretched to the size of the view.

    Attributes:
      name: The protocol.
      resize: Pixels of the shorter side before cropping; by default as the network has it.
      crop: Height and width of the crops, in pixels; by default those of the network's images.
      interpolation: How images are resampled; by default as the network has it.
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

    def shown(self, preparation: Preparation) -> Shown:
        """Returns how images are shown to a network.

        Args:
          preparation: How they are prepared for it otherwise.

        Raises:
          InputError: The crops do not fit into the resized images, or fill them.
        """
        interpolation = self.interpolation or preparation.interpolation
        if self.name == "multi_scale":
            scales = list(self.scales or _in_proportion(preparation.image_size))
            views: tuple[View, ...] = tuple(map(Scale, scales))
            numbers: dict[str, Json] = {"scales": [*scales]}
        else:
            size = preparation.image_size if self.crop is None else self.crop
            resize = preparation.resize if self.resize is None else self.resize
            ten = self.name == "ten_crop"
            views = five_crops(size, resize) if ten else (Centre(size, resize),)
            numbers = {"resize": resize, "crop": size}
        mirrored = self.name != "single_crop"
        description = {"name": self.name, "views": len(views) * (1 + mirrored)}
        return Shown(
            views,
            mirrored,
            interpolation,
            self.name == "multi_scale",
            {**description, **numbers, "interpolation": interpolation},
        )

    def check(self, network: nn.Module) -> None:
        """Refuses a network that the protocol cannot be applied to.

        Raises:
          InputError: It has no fully convolutional form, and needs one.
        """
        if self.name == "multi_scale" and not hasattr(network, "fully_convolutional"):
            raise InputError(
                "multi_scale needs a network with a fully convolutional form, and "
                f"{type(network).__name__} has none; ten_crop takes any network"
            )

    @property
    def label(self) -> str:
        """What sets it apart in the name of a file: empty for a single crop as in training."""
        numbers = (("resize", self.resize), ("crop", self.crop), ("", self.interpolation))
        parts = [f"{name}{value}" for name, value in numbers if value is not None]
        if self.name != "single_crop":
            parts.insert(0, self.name)
        return "-".join([*parts, *map(str, self.scales or ())])


def read_protocol(
    name: str,
    *,
    resize: int | None,
    crop: int | None,
    interpolation: str | None,
    scales: Sequence[str] | None,
) -> Protocol:
    """Returns a protocol of which flags say the names, and the scales as texts.

    Raises:
      InputError: A scale is no number of pixels, or what `Protocol` refuses.
    """
    for text in scales or ():
        if not (text.isascii() and text.isdecimal()):
            raise InputError(
                f"{text!r} is no number of pixels; write scales as {','.join(map(str, SCALES))}"
            )
    return Protocol(
        cast(ProtocolName, name),
        resize,
        crop,
        cast(Interpolation | None, interpolation),
        None if scales is None else tuple(map(int, scales)),
    )


def _in_proportion(image_size: int) -> list[int]:
    return [round(side * image_size / SCALES[0]) for side in SCALES]
