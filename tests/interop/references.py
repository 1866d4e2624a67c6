"""The networks of torchvision, timm and transformers themselves, with random weights."""

import functools
import importlib.util
import warnings

import numpy as np
import pytest

DEPTHS = (18, 34, 50, 101, 152)
STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
STAGES[152] = (3, 8, 36, 3)
_KEPT = []


@functools.cache
def library(name):
    """Returns torchvision, timm or transformers, or skips the test."""
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for package in ("torchvision", name):
            if importlib.util.find_spec(package) is None:
                pytest.skip(f"{package} is not installed")
        try:
            importlib.import_module("torchvision")
        except RuntimeError:
            # Its compiled part is for another build of torch. The networks do without it, but it
            # wants to describe two operators that this part would have defined.
            operators = torch.library.Library("torchvision", "DEF")
            for operator in ("nms", "qnms"):
                operators.define(f"{operator}(Tensor dets, Tensor scores, float limit) -> Tensor")
            _KEPT.append(operators)  # they go with the object
            importlib.import_module("torchvision")
        return importlib.import_module(name)


def make(name, depth=18, *, stride_on="3x3", **options):
    """Returns a library's network.

    Args:
      name: "torchvision", "timm" or "huggingface".
      depth: Number of layers.
      stride_on: Hugging Face has "1x1" too.
      **options: What else its constructor is given.
    """
    if name == "huggingface":
        transformers = library("transformers")
        fields = {"depths": STAGES[depth], "downsample_in_bottleneck": stride_on == "1x1"}
        if depth < 50:
            fields |= {"layer_type": "basic", "hidden_sizes": (64, 128, 256, 512)}
        config = transformers.ResNetConfig(**(fields | {"num_labels": 1000} | options))
        return randomize(transformers.ResNetForImageClassification(config))
    assert stride_on == "3x3"
    if name == "timm":
        return randomize(library("timm").create_model(f"resnet{depth}", **options))
    return randomize(getattr(library("torchvision").models, f"resnet{depth}")(**options))


def make_vgg(depth, batch_norm, *, width=64, units=4096, num_classes=1000):
    """Returns torchvision's VGG network, or a narrow one of its layers."""
    vgg, nn = library("torchvision").models.vgg, library("torch").nn
    layers = vgg.cfgs[{11: "A", 13: "B", 16: "D", 19: "E"}[depth]]
    layers = [n if n == "M" else n * width // 64 for n in layers]
    module = vgg.VGG(vgg.make_layers(layers, batch_norm), num_classes, init_weights=False)
    if (width, units) != (64, 4096):
        module.classifier = nn.Sequential(
            *(nn.Linear(8 * width * 49, units), nn.ReLU(), nn.Dropout()),
            *(nn.Linear(units, units), nn.ReLU(), nn.Dropout()),
            nn.Linear(units, num_classes),
        )
    return without_dropout(randomize(module))


def make_alexnet(*, units=4096, num_classes=1000):
    """Returns torchvision's AlexNet, or one with narrow hidden layers."""
    nn, module = library("torch").nn, library("torchvision").models.alexnet(num_classes=num_classes)
    if units != 4096:
        module.classifier[1] = nn.Linear(256 * 36, units)
        module.classifier[4] = nn.Linear(units, units)
        module.classifier[6] = nn.Linear(units, num_classes)
    return without_dropout(randomize(module))


def make_googlenet(**options):
    """Returns torchvision's GoogLeNet."""
    make = library("torchvision").models.googlenet
    return without_dropout(randomize(make(init_weights=False, **options)))


def without_dropout(module):
    """Returns the module, which now drops nothing."""
    for part in module.modules():
        if isinstance(part, library("torch").nn.Dropout):
            part.p = 0.0
    return module


def randomize(module):
    """Draws every number of a network, whatever it starts with; returns the network."""
    torch = library("torch")
    rng = np.random.default_rng(0)
    for name, value in module.state_dict().items():
        if name.endswith("num_batches_tracked"):
            drawn = rng.integers(1, 1000, value.shape)
        elif name.endswith("running_var"):
            drawn = rng.uniform(0.5, 1.5, value.shape)
        elif value.ndim > 1:
            drawn = rng.normal(0, np.sqrt(2 / np.prod(value.shape[1:])), value.shape)
        elif name.endswith("weight"):
            # Well below 1, so that what many blocks add up to stays of one order of magnitude.
            drawn = rng.uniform(0.4, 0.8, value.shape)
        else:
            drawn = rng.normal(0, 0.1, value.shape)
        value.copy_(torch.from_numpy(np.asarray(drawn)))
    return module


def logits_of(output):
    """Returns the logits of what a network returned."""
    return getattr(output, "logits", output)
