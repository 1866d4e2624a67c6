"""Files of Caffe: `.caffemodel`, and `.binaryproto` of a mean image.

Both are protocol buffers of Caffe's own description (caffe.proto): a net has layers, a layer blobs,
and a blob a shape and numbers. Only these are read; blobs get the names `LAYER/0`, `LAYER/1`, ...
"""

import itertools
import math
from collections.abc import Iterator, Mapping

import numpy as np
from etils import epath
from jaxtyping import Float32

from resnet_jax.errors import InputError
from resnet_jax.files import write_atomically
from resnet_jax.interop import wire

MODEL = "model.caffemodel"
MEAN = "mean.binaryproto"

_NET_NAME = 1
_LAYERS = {100: (1, 7), 2: (4, 6)}
"""Of a net: fields that are layers, today's and those of before 2014; name and blobs of a layer."""
_TYPE = 2
_LEGACY_SHAPE = (1, 2, 3, 4)  # of a blob: num, channels, height, width
_DATA, _SHAPE, _DOUBLE_DATA = 5, 7, 8
_DIM = 1
_MOST_DIMENSIONS = 8
_MOST_BLOBS = 10**5
_LONGEST_NAME = 200
_LONGEST_NET_NAME = 10**5


def read_caffe(path: epath.PathLike) -> tuple[dict[str, np.ndarray], str]:
    """Returns the blobs of the layers of a net that have any, and the net's name.

    Args:
      path: A `.caffemodel`.

    Raises:
      InputError: It is no such file, or is damaged.
    """
    path = epath.Path(path)
    blobs: dict[str, np.ndarray] = {}
    net_name = ""
    try:
        for number, value in wire.fields(memoryview(path.read_bytes())):
            if number == _NET_NAME:
                net_name = _text(value, _LONGEST_NET_NAME)
            if number not in _LAYERS or not isinstance(value, memoryview):
                continue
            name, arrays = _layer(value, *_LAYERS[number])
            for i, array in enumerate(arrays):
                if f"{name}/{i}" in blobs:
                    raise InputError(f"the layer {name[:60]!a} is there twice")
                blobs[f"{name}/{i}"] = array
            if len(blobs) > _MOST_BLOBS:
                raise InputError("it has more blobs than any network")
        if not blobs:
            raise InputError("it has no layer with numbers")
    except InputError as error:
        raise InputError(f"{path} cannot be read as a caffemodel: {error}") from error
    return blobs, net_name


def read_mean_image(path: epath.PathLike) -> Float32[np.ndarray, "h w 3"]:
    """Returns a mean image, in RGB and for images of 0 to 255.

    Args:
      path: A `.binaryproto`, in which it is BGR.

    Raises:
      InputError: It is no such file, or is damaged.
    """
    path = epath.Path(path)
    try:
        blob = _blob(memoryview(path.read_bytes()))
        if blob.ndim == 4 and blob.shape[0] == 1:
            blob = blob[0]
        if blob.ndim != 3 or blob.shape[0] != 3:
            raise InputError(f"it has the shape {blob.shape} and not (3, height, width)")
        if not np.isfinite(blob).all():
            raise InputError("it has numbers that are none")
    except InputError as error:
        raise InputError(f"{path} cannot be read as a mean image: {error}") from error
    return blob[::-1].transpose(1, 2, 0).astype(np.float32)


def write_caffe(
    path: epath.Path,
    arrays: Mapping[str, np.ndarray],
    mean_image: Float32[np.ndarray, "h w 3"] | None,
    name: str,
) -> None:
    """Writes a net with nothing but its blobs, as Caffe needs it to fill one of its own.

    Args:
      path: A file, or a folder to be made that takes the mean image too.
      arrays: Blobs by name, `LAYER/NUMBER`; those that are not float64 are written as float32.
      mean_image: Mean of the images of 0 to 255, RGB; left out of a file.
      name: Of the net.
    """
    layers: dict[str, dict[int, np.ndarray]] = {}
    for key, array in arrays.items():
        layer, _, number = key.rpartition("/")
        layers.setdefault(layer, {})[int(number)] = array
    net = [wire.field(_NET_NAME, name.encode())]
    for layer, blobs in layers.items():
        parts = [wire.field(1, layer.encode()), wire.field(_TYPE, _type_of(layer).encode())]
        parts += [wire.field(7, _encoded(blobs[i])) for i in sorted(blobs)]
        net.append(wire.field(100, b"".join(parts)))
    if path.suffix != ".caffemodel":
        if mean_image is not None:
            blob = _encoded(mean_image.transpose(2, 0, 1)[None, ::-1])
            write_atomically(path / MEAN, blob)
        path = path / MODEL
    write_atomically(path, b"".join(net))


def _type_of(layer: str) -> str:
    kinds = {"res": "Convolution", "conv": "Convolution", "bn": "BatchNorm", "scale": "Scale"}
    return next((kind for start, kind in kinds.items() if layer.startswith(start)), "InnerProduct")


def _layer(message: memoryview, name_field: int, blobs_field: int) -> tuple[str, list[np.ndarray]]:
    name, arrays = "", []
    for number, value in wire.fields(message):
        if number == name_field:
            name = _text(value, _LONGEST_NAME)
        elif number == blobs_field and isinstance(value, memoryview):
            arrays.append(_blob(value))
        if len(arrays) > _MOST_BLOBS:
            break
    return name, arrays


def _blob(message: memoryview) -> np.ndarray:
    legacy, shape, numbers = [1, 1, 1, 1], None, None
    for number, value in wire.fields(message):
        if number in _LEGACY_SHAPE and isinstance(value, int):
            legacy[number - 1] = value
        elif number == _SHAPE and isinstance(value, memoryview):
            shape = list(itertools.islice(_dims(value), _MOST_DIMENSIONS + 1))
        elif number in (_DATA, _DOUBLE_DATA):
            dtype = np.dtype("<f4" if number == _DATA else "<f8")
            if isinstance(value, int) or numbers is not None or len(value) % dtype.itemsize:
                raise InputError("a blob's numbers do not stand in one row")
            numbers = np.frombuffer(value, dtype)
    if shape is None:
        shape = legacy
        while len(shape) > 1 and shape[0] == 1:  # all blobs had four dimensions
            shape = shape[1:]
    if numbers is None:
        raise InputError("a blob has no numbers")
    if len(shape) > _MOST_DIMENSIONS or min(shape, default=1) < 1:
        raise InputError(f"a blob has the shape {tuple(shape[:_MOST_DIMENSIONS])}")
    if math.prod(shape) != len(numbers):
        raise InputError(f"a blob has {len(numbers)} numbers and the shape {tuple(shape)}")
    return numbers.reshape(shape)


def _dims(message: memoryview) -> Iterator[int]:
    for number, value in wire.fields(message):
        if number == _DIM:
            yield from (value,) if isinstance(value, int) else wire.varints(value)


def _text(value: int | memoryview, longest: int) -> str:
    if isinstance(value, int) or len(value) > longest:
        raise InputError("it has a name that is none")
    try:
        return bytes(value).decode()
    except UnicodeDecodeError as error:
        raise InputError("it has a name that is no text") from error


def _encoded(array: np.ndarray) -> bytes:
    double = array.dtype == np.float64
    dims = b"".join(map(wire.varint, array.shape))
    numbers = array.astype("<f8" if double else "<f4").tobytes()
    return wire.field(_SHAPE, wire.field(_DIM, dims)) + wire.field(
        _DOUBLE_DATA if double else _DATA, numbers
    )
