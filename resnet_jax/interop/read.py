"""From a file of any dialect to a network of ours and its arrays."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import numpy as np
from etils import epath
from flax import linen as nn
from flax import traverse_util
from jaxtyping import Float32, PyTree

from resnet_jax.data import Statistics
from resnet_jax.errors import InputError
from resnet_jax.interop import preprocessing as preprocessings
from resnet_jax.interop.configs import checked_fields, fields_of_config, form_of, read_entry
from resnet_jax.interop.families import key_map, recognise, usual_side
from resnet_jax.interop.families.key_map import DialectName
from resnet_jax.interop.formats import Contents, Json, refusing
from resnet_jax.interop.preprocessing import Preprocessing
from resnet_jax.interop.source import read_source
from resnet_jax.interop.weights import (
    MEAN_IMAGE,
    Weights,
    check_fit,
    check_types,
    extra_shapes,
    filled,
    fold_biases,
    image_channels,
    is_extra,
    network_shapes,
    shapes_of,
)

_TORCHVISION_V2 = ("-11ad3fa6", "-cd907fc2", "-f82ba261")
"""Ends of the names of torchvision's second weights (of 50, 101 and 152 layers)."""

_TORCHVISION_GOOGLENET = "-1378be20"
"""End of the name of torchvision's weights of GoogLeNet, which need other images than the rest."""

_LONGEST_MESSAGE = 1000
_MEAN_COLOURS = {
    "keras": (123.68, 116.779, 103.939),
    "caffe": (123.151630838, 115.902882574, 103.062623801),
}
"""Mean colours of ImageNet, of 255: those that Keras subtracts, and those of He's mean image."""


class Pretrained(NamedTuple):
    """A network, ready to use: `network.apply(variables, images, train=False)`.

    Attributes:
      network: The network.
      variables: Its `params` and `batch_stats`, which may be empty; float32, on the host.
      preprocessing: How images become its input.
      source: Where it comes from.
    """

    network: nn.Module
    variables: dict[str, PyTree[Float32[np.ndarray, "..."]]]
    preprocessing: Preprocessing
    source: str

    @property
    def in_channels(self) -> int:
        """Channels of the images."""
        flat = cast(dict[str, np.ndarray], traverse_util.flatten_dict(self.variables, sep="/"))
        return image_channels(self.network, shapes_of(flat))

    def statistics(self) -> Statistics:
        """Returns the statistics that images are normalised with.

        Raises:
          InputError: They are for images of other channels.
        """
        there, here = len(self.preprocessing.mean), self.in_channels
        if there != here:
            raise InputError(
                f"{self.source} takes images of {here} channels, and what is subtracted has {there}"
            )
        return self.preprocessing.statistics()


def load_pretrained(
    source: epath.PathLike,
    *,
    num_classes: int | None = None,
    dialect: DialectName | None = None,
    preprocessing: Preprocessing | None = None,
    **options: Any,
) -> Pretrained:
    """Returns a network with weights of torchvision, timm, Hugging Face, Keras, Caffe or our own.

    Depth, block, width and number of classes are recognised by the arrays. Which convolution has
    the stride, and how the max-pool is padded, comes from the metadata of files that were written
    here and from the configs of Hugging Face and Keras; else it is the library's usual form: v1.5
    in torchvision and timm, v1 in Keras and Caffe.

    Images are RGB for all: where the source has BGR (Keras, Caffe), the inputs of the first kernel
    are reversed. Biases of convolutions before a normalisation (Keras; conv1 of He's ResNet-50) are
    folded into its running mean, with which the network computes the same, in training too;
    `read_weights` keeps them beside.

    Args:
      source: A file of safetensors, PyTorch (`.pth`, of which nothing is run), Keras (`.h5`,
        `.weights.h5` or `.keras`; needs `h5py`) or Caffe (`.caffemodel`; needs `protobuf`); a
        folder with `model.safetensors` or `pytorch_model.bin` and perhaps `config.json` and
        `preprocessor_config.json`, or with a `.caffemodel` and perhaps a `mean.binaryproto`; or
        `owner/name[@revision]` of the Hugging Face hub (needs `huggingface_hub`).
      num_classes: Classes of a new head, which starts at zero; by default the source's head.
      dialect: The library that named the arrays; by default it is recognised.
      preprocessing: How images are prepared; by default as the source says, or as is usual.
      **options: Fields of the network, such as `stride_on`, `dtype` or `bn_group_size`, which
        override the recognised ones.

    Raises:
      InputError: The source is missing or cannot be read, or its arrays are of another network; the
        message has the first names and shapes that differ.
    """
    weights = read_weights(source, dialect=dialect, preprocessing=preprocessing, **options)
    network = weights.network
    arrays = {
        name: np.asarray(array, np.float32, order="C")
        for name, array in fold_biases(weights.arrays).items()
        if not is_extra(name)
    }
    if num_classes is not None:
        network = network.clone(num_classes=num_classes)
        shapes = network_shapes(network, weights.channels)
        arrays |= {
            name: np.zeros(shapes[name], np.float32)
            for name, array in arrays.items()
            if array.shape != shapes[name]
        }
    variables = {"batch_stats": {}, **traverse_util.unflatten_dict(arrays, sep="/")}
    return Pretrained(network, variables, weights.preprocessing, weights.source)


def read_weights(
    source: epath.PathLike,
    *,
    dialect: DialectName | None = None,
    preprocessing: Preprocessing | None = None,
    **options: Any,
) -> Weights:
    """Returns the network that a file's arrays belong to, and all arrays in the types of the file.

    Arguments and errors are those of `load_pretrained`.
    """
    try:
        path, contents = read_source(source)
    except InputError as error:
        raise InputError(_printable(str(error))) from error
    try:
        return _weights(path, contents, str(source), dialect, preprocessing, options)
    except InputError as error:
        raise InputError(_printable(f"{source} cannot be taken: {error}")) from error


def _printable(message: str) -> str:
    """Returns a message, which can quote a stranger's file, fit for a terminal."""
    shown = message if len(message) <= _LONGEST_MESSAGE else f"{message[:_LONGEST_MESSAGE]}..."
    return "".join(c if c.isprintable() else "?" for c in shown)


def _weights(
    path: epath.Path,
    contents: Contents,
    source: str,
    dialect: DialectName | None,
    preprocessing: Preprocessing | None,
    options: Mapping[str, Any],
) -> Weights:
    arrays = dict(contents.arrays)
    mean_image = arrays.pop(MEAN_IMAGE, contents.mean_image)
    shapes = shapes_of(arrays)
    entry = read_entry(contents.metadata)
    if dialect is None and "architecture" in (contents.config or {}):
        dialect = "timm"
    class_name, saved = form_of(entry)
    network_class, dialect = recognise(shapes, dialect, class_name)
    saved = checked_fields(saved, network_class)
    keys = key_map(network_class, dialect)
    fields = {**keys.form, **keys.infer(shapes), **saved}
    fields |= {**fields_of_config(contents.config, dialect), **options}
    with refusing("its network cannot be made"):
        if sum(saved.get("stage_sizes", ())) > len(arrays):
            raise InputError(f"it says of its network {saved}, and has fewer arrays")
        network = network_class(**fields)
    key = functools.partial(keys.key, network)
    names = network_shapes(network, 3)
    found = {
        name: theirs
        for name in (*names, *extra_shapes(names))
        if (theirs := key(name)) is not None and theirs.name in arrays
    }
    channels = image_channels(
        network, {name: theirs.our_shape(shapes[theirs.name]) for name, theirs in found.items()}
    )
    expected = network_shapes(network, channels)
    check_fit(key, shapes, {**expected, **extra_shapes(expected)})
    ours = {name: theirs.to_ours(arrays[theirs.name]) for name, theirs in found.items()}
    check_types(ours)
    for name in filter(is_extra, found):
        fill = keys.fill(network, name)
        if fill is not None and ours[name].tobytes() == filled(ours, name, fill).tobytes():
            del ours[name]  # as where nothing else is known
    if preprocessing is None:
        usual = preprocessings.usual(channels, usual_side(network_class))
        preprocessing = _preprocessing(path, contents, dialect, entry, usual)
        if mean_image is not None:
            shape = (preprocessing.image_size, preprocessing.image_size, channels)
            if mean_image.shape != shape or mean_image.dtype != np.float32:
                raise InputError(f"its mean image is not float32 of shape {shape}")
            preprocessing = preprocessing._replace(mean_image=mean_image)
    return Weights(network, ours, preprocessing, source)


def _preprocessing(
    path: epath.Path,
    contents: Contents,
    dialect: DialectName,
    entry: Mapping[str, Json],
    usual: Preprocessing,
) -> Preprocessing:
    config = (contents.config or {}).get("pretrained_cfg")
    match entry.get("preprocessing"):
        case dict() as saved:
            return preprocessings.of_json(saved)
        case _ if dialect in _MEAN_COLOURS:
            mean = tuple(value / 255 for value in _MEAN_COLOURS[dialect])
            return Preprocessing(mean=mean, std=(1 / 255,) * 3)
        case _ if dialect == "timm" and isinstance(config, dict):
            return preprocessings.of_timm(config)
        case _ if dialect == "huggingface" and contents.preprocessor is not None:
            return preprocessings.of_hugging_face(contents.preprocessor)
        case _ if dialect == "torchvision" and path.stem.endswith(_TORCHVISION_V2):
            return Preprocessing(resize=232)
        case _ if dialect == "torchvision" and path.stem.endswith(_TORCHVISION_GOOGLENET):
            return Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3)
        case _:
            return usual
