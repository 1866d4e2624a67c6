"""He's Caffe models without Caffe: the layers of the published prototxts, one by one, in torch.

Written from what the prototxts say, and nothing else: names, strides, paddings, where biases are,
that pools round up, that images are BGR. Files are encoded by protobuf itself, from the numbers of
the fields in caffe.proto.
"""

import functools
import math

import numpy as np

from tests.interop.references import library


def _numbered(stage, last):
    return " ".join([f"{stage}a", *(f"{stage}b{i}" for i in range(1, last + 1))])


_NAMES = {
    50: "2a 2b 2c 3a 3b 3c 3d 4a 4b 4c 4d 4e 4f 5a 5b 5c",
    101: f"2a 2b 2c {_numbered(3, 3)} {_numbered(4, 22)} 5a 5b 5c",
    152: f"2a 2b 2c {_numbered(3, 7)} {_numbered(4, 35)} 5a 5b 5c",
    1: "2a 3a 3b",
}
BLOCKS = {depth: names.split() for depth, names in _NAMES.items()}
EPSILON = 1e-5


def random_blobs(depth, *, width=64, classes=1000, bias=None):
    """Returns blobs by the name of their layer, of 50, 101 or 152 layers, or 1 for a small one."""
    rng = np.random.default_rng(0)
    blobs = {}

    def convolution(name, filters, inputs, side, *, bias=False):
        spread = np.sqrt(2 / (inputs * side**2))
        blobs[name] = [rng.normal(0, spread, (filters, inputs, side, side))]
        if bias:
            blobs[name].append(rng.normal(0, 0.1, filters))

    def normalisation(name, filters):
        factor = rng.uniform(0.5, 999)
        mean, var = rng.normal(0, 0.1, filters), rng.uniform(0.5, 1.5, filters)
        blobs[f"bn{name}"] = [factor * mean, factor * var, np.array([factor])]
        blobs[f"scale{name}"] = [rng.uniform(0.4, 0.8, filters), rng.normal(0, 0.1, filters)]

    convolution("conv1", width, 3, 7, bias=depth == 50 if bias is None else bias)
    normalisation("_conv1", width)
    inputs = width
    for block in BLOCKS[depth]:
        filters = width * 2 ** (int(block[0]) - 2)
        if block[1:] == "a":
            convolution(f"res{block}_branch1", 4 * filters, inputs, 1)
            normalisation(f"{block}_branch1", 4 * filters)
        for layer, outputs, side in (("a", filters, 1), ("b", filters, 3), ("c", 4 * filters, 1)):
            before = {"a": inputs, "b": filters, "c": filters}[layer]
            convolution(f"res{block}_branch2{layer}", outputs, before, side)
            normalisation(f"{block}_branch2{layer}", outputs)
        inputs = 4 * filters
    blobs["fc1000"] = [rng.normal(0, 0.02, (classes, inputs)), rng.normal(0, 0.1, classes)]
    return {name: [blob.astype(np.float32) for blob in group] for name, group in blobs.items()}


def run(depth, blobs, images, *, train=False):
    """Returns logits.

    Args:
      depth: As in `random_blobs`.
      blobs: Tensors by the name of their layer.
      images: RGB images [n, h, w, 3]; the network sees BGR.
      train: Normalise by the batch (`use_global_stats: false`).
    """
    torch = library("torch")
    functional = torch.nn.functional
    x = torch.from_numpy(np.ascontiguousarray(images[..., ::-1].transpose(0, 3, 1, 2)))

    def convolution(x, name, stride=1, padding=0):
        kernel, *bias = blobs[name]
        return functional.conv2d(x, kernel, *(bias or [None]), stride, padding)

    def normalisation(x, name):
        mean, var, factor = blobs[f"bn{name}"]
        mean, var = (mean / factor, var / factor)
        if train:
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
        scale, shift = blobs[f"scale{name}"]
        x = (x - mean[:, None, None]) / torch.sqrt(var[:, None, None] + EPSILON)
        return x * scale[:, None, None] + shift[:, None, None]

    x = torch.relu(normalisation(convolution(x, "conv1", 2, 3), "_conv1"))
    x = pool(x)
    for block in BLOCKS[depth]:
        stride = 2 if block[1:] == "a" and block[0] != "2" else 1
        shortcut = x
        if block[1:] == "a":
            shortcut = convolution(x, f"res{block}_branch1", stride)
            shortcut = normalisation(shortcut, f"{block}_branch1")
        x = convolution(x, f"res{block}_branch2a", stride)
        x = torch.relu(normalisation(x, f"{block}_branch2a"))
        x = convolution(x, f"res{block}_branch2b", 1, 1)
        x = torch.relu(normalisation(x, f"{block}_branch2b"))
        x = normalisation(convolution(x, f"res{block}_branch2c"), f"{block}_branch2c")
        x = torch.relu(x + shortcut)
    weight, bias = blobs["fc1000"]
    return x.mean((2, 3)) @ weight.T + bias


def pool(x):
    """Max-pools 3x3 with stride 2 and no padding, where windows may reach beyond the end."""
    torch = library("torch")
    sides = [math.ceil((side - 3) / 2) + 1 for side in x.shape[2:]]
    rows = [x[:, :, 2 * i : 2 * i + 3].amax(2) for i in range(sides[0])]
    x = torch.stack(rows, 2)
    return torch.stack([x[..., 2 * i : 2 * i + 3].amax(3) for i in range(sides[1])], 3)


SIDES = ("num", "channels", "height", "width")
PROTO = {
    "BlobShape": "dim:1:INT64*",
    "BlobProto": "num:1:INT32 channels:2:INT32 height:3:INT32 width:4:INT32 data:5:FLOAT* "
    "diff:6:FLOAT* shape:7:.BlobShape double_data:8:DOUBLE*",
    "LayerParameter": "name:1:STRING type:2:STRING bottom:3:STRING* loss_weight:5:FLOAT* "
    "blobs:7:.BlobProto*",
    "V1LayerParameter": "bottom:2:STRING* name:4:STRING type:5:INT32 blobs:6:.BlobProto*",
    "NetParameter": "name:1:STRING layers:2:.V1LayerParameter* input:3:STRING* "
    "force_backward:5:BOOL layer:100:.LayerParameter*",
}
"""Fields of caffe.proto: name, number and type, with an asterisk where they are repeated."""


@functools.cache
def messages():
    """Returns the classes of the messages NetParameter and BlobProto."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe", syntax="proto2")
    for name, fields in PROTO.items():
        made = file.message_type.add(name=name)
        for field, number, kind in (text.split(":") for text in fields.split()):
            repeated, kind = kind.endswith("*"), kind.rstrip("*")
            label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            added = made.field.add(name=field, number=int(number), label=label)
            if kind.startswith("."):
                added.type, added.type_name = kinds.TYPE_MESSAGE, f".caffe{kind}"
            else:
                added.type = getattr(kinds, f"TYPE_{kind}")
            added.options.packed = repeated and kind in ("INT64", "FLOAT", "DOUBLE")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    find, make = pool.FindMessageTypeByName, message_factory.GetMessageClass
    return make(find("caffe.NetParameter")), make(find("caffe.BlobProto"))


def fill(blob, array, *, legacy=False):
    """Puts an array into a BlobProto."""
    if legacy:
        sides = (1,) * (4 - array.ndim) + array.shape
        for name, side in zip(SIDES, sides, strict=True):
            setattr(blob, name, side)
    else:
        blob.shape.dim.extend(array.shape)
    blob.data.extend(array.ravel().tolist())


def encode(blobs, *, v1=False, legacy=False, name="ResNet-50"):
    """Returns a caffemodel."""
    net = messages()[0](name=name, input=["data"], force_backward=True)
    layers = net.layers if v1 else net.layer
    layers.add(name="data")
    for name, group in blobs.items():
        layer = layers.add(name=name, bottom=["x"])
        for array in group:
            fill(layer.blobs.add(), array, legacy=legacy)
        layers.add(name=f"{name}_relu")
    return net.SerializeToString()


def decode(content):
    """Returns the blobs of a caffemodel by the name of their layer."""
    net = messages()[0].FromString(content)
    return {
        layer.name: [
            np.array(blob.data, np.float32).reshape(tuple(blob.shape.dim)) for blob in layer.blobs
        ]
        for layer in net.layer
        if layer.blobs
    }
