"""Files of Caffe: `.caffemodel`, and `.binaryproto` of a mean image.

Both are messages of caffe.proto: a net has layers, a layer blobs, and a blob a shape and numbers.
Blobs get the names `LAYER/0`, `LAYER/1`, ...
"""

import functools
import math
from collections.abc import Mapping
from types import SimpleNamespace

import numpy as np
from etils import epath
from jaxtyping import Float32

from resnet_jax.errors import InputError
from resnet_jax.files import write_atomically

MODEL = "model.caffemodel"
MEAN = "mean.binaryproto"

_MESSAGES = {
    "Net": {"name": (1, "bytes"), "old_layers": (2, "[bytes]"), "layers": (100, "[bytes]")},
    "Layer": {"name": (1, "bytes"), "type": (2, "bytes"), "blobs": (7, "[bytes]")},
    "OldLayer": {"name": (4, "bytes"), "blobs": (6, "[bytes]")},
    "Blob": {
        **{side: (i, "int32") for i, side in enumerate(("num", "channels", "height", "width"), 1)},
        **{"data": (5, "[bytes]"), "shape": (7, "bytes")},
    },
    "Shape": {"dim": (1, "[int64]")},
}
"""Number and type of the fields that are read, of caffe.proto; old layers are from before 2014.

Messages within messages and rows of numbers are declared as bytes, which are the same in a file:
each is decoded when its turn comes, so that a file of nothing but empty fields takes at most some
twenty times its size.
"""

_MOST_DIMENSIONS = 8
_MOST_BLOBS = 10**5
_LONGEST_NAME = 200
_TYPES = {"res": "Convolution", "conv": "Convolution", "bn": "BatchNorm", "scale": "Scale"}


def read_caffe(path: epath.Path) -> tuple[dict[str, np.ndarray], str]:
    """Returns the blobs of a `.caffemodel`, and the net's name."""
    blobs: dict[str, np.ndarray] = {}
    net = _decoded("Net", path.read_bytes())
    if len(net.old_layers) + len(net.layers) > _MOST_BLOBS:
        raise InputError("it has more layers than any network")
    for i, content in enumerate([*net.old_layers, *net.layers]):
        layer = _decoded("OldLayer" if i < len(net.old_layers) else "Layer", content)
        name = layer.name.decode(errors="replace")
        if len(name) > _LONGEST_NAME or len(blobs) + len(layer.blobs) > _MOST_BLOBS:
            raise InputError("it has longer names or more blobs than any network")
        for number, blob in enumerate(layer.blobs):
            if f"{name}/{number}" in blobs:
                raise InputError(f"the layer {name[:60]!a} is there twice")
            blobs[f"{name}/{number}"] = _array(blob)
    if not blobs:
        raise InputError("it has no layer with numbers")
    return blobs, net.name.decode(errors="replace")


def read_mean_image(path: epath.Path) -> Float32[np.ndarray, "h w 3"]:
    """Returns the mean image of a `.binaryproto`, of images of 0 to 255, in RGB (there in BGR)."""
    blob = _array(path.read_bytes())
    if blob.ndim == 4 and blob.shape[0] == 1:
        blob = blob[0]
    if blob.ndim != 3 or blob.shape[0] != 3 or not np.isfinite(blob).all():
        raise InputError(f"it has the shape {blob.shape} and not (3, height, width), or NaN")
    return blob[::-1].transpose(1, 2, 0).astype(np.float32)


def write_caffe(
    path: epath.Path,
    arrays: Mapping[str, np.ndarray],
    mean_image: Float32[np.ndarray, "h w 3"] | None,
    name: str,
) -> None:
    """Writes a net with nothing but its blobs, which Caffe copies into a net of its own.

    They are written as float32. A path that is not a `.caffemodel` is a folder to be made, which
    takes the mean image too (of images of 0 to 255, RGB).
    """
    classes = _classes()
    layers: dict[str, dict[int, np.ndarray]] = {}
    for key, array in arrays.items():
        layer, _, number = key.rpartition("/")
        layers.setdefault(layer, {})[int(number)] = array
    net = classes.Net(name=name.encode())
    for layer, blobs in layers.items():
        kind = next((t for start, t in _TYPES.items() if layer.startswith(start)), "InnerProduct")
        message = classes.Layer(name=layer.encode(), type=kind.encode())
        message.blobs.extend(_encoded(blobs[i]) for i in sorted(blobs))
        net.layers.append(message.SerializeToString())
    if path.suffix != ".caffemodel":
        if mean_image is not None:
            write_atomically(path / MEAN, _encoded(mean_image.transpose(2, 0, 1)[None, ::-1]))
        path = path / MODEL
    write_atomically(path, net.SerializeToString())


@functools.cache
def _classes() -> SimpleNamespace:
    """Returns the classes of the messages; protobuf is an extra."""
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    except ImportError as error:
        raise InputError(
            "for files of Caffe protobuf has to be installed: pip install 'resnet_jax[caffe]'"
        ) from error
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="resnet_jax_caffe.proto", syntax="proto2")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field_name, (number, kind) in fields.items():
            repeated = kind.startswith("[")
            added = message.field.add(
                name=field_name,
                number=number,
                label=field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL,
                type=getattr(field, f"TYPE_{kind.strip('[]').upper()}"),
            )
            added.options.packed = kind == "[int64]"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    find, make = pool.FindMessageTypeByName, message_factory.GetMessageClass
    return SimpleNamespace(**{name: make(find(name)) for name in _MESSAGES})


def _decoded(kind: str, content: bytes):
    """Returns a message of a kind of `_MESSAGES`."""
    from google.protobuf.message import DecodeError

    try:
        return getattr(_classes(), kind).FromString(content)
    except DecodeError as error:
        raise InputError(f"it is not a message of protocol buffers ({error})") from error


def _array(content: bytes) -> np.ndarray:
    """Returns the numbers of a blob."""
    blob = _decoded("Blob", content)
    if blob.HasField("shape"):
        shape = tuple(_decoded("Shape", blob.shape).dim[: _MOST_DIMENSIONS + 1])
    else:
        sides = ("num", "channels", "height", "width")
        shape = tuple(getattr(blob, side) if blob.HasField(side) else 1 for side in sides)
        while len(shape) > 1 and shape[0] == 1:  # all blobs had four dimensions
            shape = shape[1:]
    if len(blob.data) != 1 or len(blob.data[0]) % 4:
        raise InputError("a blob has no numbers of float32, or they do not stand in one row")
    numbers = np.frombuffer(blob.data[0], "<f4")
    if len(shape) > _MOST_DIMENSIONS or min(shape, default=1) < 1:
        raise InputError(f"a blob has the shape {shape[:_MOST_DIMENSIONS]}")
    if math.prod(shape) != len(numbers):
        raise InputError(f"a blob has {len(numbers)} numbers and the shape {shape}")
    return numbers.reshape(shape)


def _encoded(array: np.ndarray) -> bytes:
    """Returns a blob."""
    classes = _classes()
    blob = classes.Blob(shape=classes.Shape(dim=array.shape).SerializeToString())
    blob.data.append(array.astype("<f4").tobytes())
    return blob.SerializeToString()
