"""Preprocessing of images: the resize, crop, mean and deviation that weights were trained with."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, get_args

import numpy as np
from jaxtyping import Float32

from resnet_jax.data import Interpolation, Statistics
from resnet_jax.interop.formats import Json, refusing

_PILLOW = {2: "bilinear", 3: "bicubic"}
_CONVNEXT_SQUASHES = 384
_MOST_PIXELS = 4096  # of a side: a stranger's file does not decide on huge images


class Preprocessing(NamedTuple):
    """How images become a network's input: resize, crop the centre, subtract, divide.

    Attributes:
      image_size: Height and width of the crop, in pixels.
      resize: Pixels of the shorter side before the crop.
      interpolation: "bilinear" or "bicubic".
      mean: Mean of each channel, of images of 0 to 1.
      std: Deviation of each channel, in the same units.
      mean_image: Subtracted instead of `mean`, of images of 0 to 255; None for most.
    """

    image_size: int = 224
    resize: int = 256
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    mean_image: Float32[np.ndarray, "h w c"] | None = None

    def statistics(self) -> Statistics:
        """Returns mean and deviation for pixels of 0 to 255."""
        mean = 255 * np.array(self.mean) if self.mean_image is None else self.mean_image
        std = 255 * np.array(self.std)
        return Statistics(mean=mean.astype(np.float32), std=std.astype(np.float32))


SAVED = Preprocessing._fields[:5]
"""Fields that our own metadata have; a mean image is among the arrays."""


def usual(channels: int, side: int) -> Preprocessing:
    """Returns the preprocessing of a network whose source has none.

    Images of three channels are normalised with ImageNet's colours; others stay from 0 to 1, as
    their mean is not known. The crop is 7/8 of the shorter side, as 224 of 256 pixels.
    """
    resize = round(side * 256 / 224)
    if channels == 3:
        return Preprocessing(side, resize)
    return Preprocessing(side, resize, mean=(0.0,) * channels, std=(1.0,) * channels)


def of_statistics(
    statistics: Statistics, *, image_size: int, resize: int, interpolation: Interpolation
) -> Preprocessing:
    """Returns the preprocessing of a run with these statistics, of pixels of 0 to 255."""
    mean = np.asarray(statistics.mean, np.float64)
    return Preprocessing(
        image_size,
        resize,
        interpolation,
        mean=tuple((mean.reshape(-1, mean.shape[-1]).mean(0) / 255).tolist()),
        std=tuple((np.asarray(statistics.std, np.float64) / 255).tolist()),
        mean_image=np.asarray(statistics.mean) if mean.ndim == 3 else None,
    )


@refusing("timm's pretrained_cfg describes an unknown preprocessing; give one explicitly")
def of_timm(config: Mapping[str, Json]) -> Preprocessing:
    """Returns the preprocessing of a `pretrained_cfg` of timm, for its training size."""
    size = int(config["input_size"][-1])  # pyrefly: ignore
    if config.get("crop_mode", "center") != "center":
        raise ValueError(f"crop_mode is {config['crop_mode']!r}")
    resize = math.floor(size / float(config.get("crop_pct", 0.875)))  # pyrefly: ignore
    return _checked(size, resize, config["interpolation"], config["mean"], config["std"])


@refusing("preprocessor_config.json describes an unknown preprocessing; give one explicitly")
def of_hugging_face(config: Mapping[str, Json]) -> Preprocessing:
    """Returns the preprocessing of a `preprocessor_config.json` of Hugging Face."""
    for step in ("do_resize", "do_normalize", "do_rescale"):
        if not config.get(step, True):
            raise ValueError(f"{step} is {config[step]}")
    if not math.isclose(config.get("rescale_factor", 1 / 255), 1 / 255):  # pyrefly: ignore
        raise ValueError(f"rescale_factor is {config['rescale_factor']}")
    interpolation = _PILLOW[int(config.get("resample", 3))]  # pyrefly: ignore
    processor = config.get("image_processor_type", config.get("feature_extractor_type"))
    resize = int(_side(config["size"]))  # pyrefly: ignore
    if "crop_size" in config and config.get("do_center_crop", True):
        size = _side(config["crop_size"])
    elif str(processor).startswith("ConvNext") and resize < _CONVNEXT_SQUASHES:
        # The processor that the published ResNets name: one number, and a share of it.
        size, crop = resize, float(config.get("crop_pct") or 224 / 256)  # pyrefly: ignore
        resize = int(size / crop)
    else:
        raise ValueError(f"images are squashed to {resize} pixels by {processor}")
    return _checked(size, resize, interpolation, config["image_mean"], config["image_std"])


@refusing("the metadata describe an unknown preprocessing; give one explicitly")
def of_json(config: Mapping[str, Json]) -> Preprocessing:
    """Returns the preprocessing in our own metadata."""
    return _checked(*(config[field] for field in SAVED))


def to_timm(preprocessing: Preprocessing) -> dict[str, Json]:
    """Returns the part of timm's `pretrained_cfg` with the preprocessing."""
    size, resize = preprocessing.image_size, preprocessing.resize
    crop = size / resize
    if math.floor(size / crop) < resize:  # by the last bit
        crop = math.nextafter(crop, 0)
    return {
        "input_size": [len(preprocessing.mean), size, size],
        "interpolation": preprocessing.interpolation,
        "crop_pct": crop,
        "crop_mode": "center",
        "mean": list(preprocessing.mean),
        "std": list(preprocessing.std),
    }


def to_hugging_face(preprocessing: Preprocessing) -> dict[str, Json]:
    """Returns a `preprocessor_config.json` of Hugging Face."""
    size = preprocessing.image_size
    return {
        # The processor that resizes and crops by two numbers of their own.
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": preprocessing.resize},
        "resample": {name: number for number, name in _PILLOW.items()}[preprocessing.interpolation],
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocessing.mean),
        "image_std": list(preprocessing.std),
    }


def _checked(size: Any, resize: Any, interpolation: Any, mean: Any, std: Any) -> Preprocessing:
    if interpolation not in get_args(Interpolation):
        raise ValueError(f"interpolation is {interpolation!r}")
    mean, std = (tuple(map(float, numbers)) for numbers in (mean, std))
    sides = type(size) is type(resize) is int and 1 <= size <= resize <= _MOST_PIXELS
    if (
        not sides
        or len(mean) != len(std)
        or min(std) <= 0
        or not all(map(math.isfinite, mean + std))
    ):
        raise ValueError(f"{size} of {resize} pixels, mean {mean} and std {std}")
    return Preprocessing(size, resize, interpolation, mean, std)


def _side(size: Json) -> Json:
    match size:
        case {"height": height, "width": width} if height != width:
            raise ValueError(f"size is {size}")
        case {"shortest_edge": side} | {"height": side} | side:
            return side
