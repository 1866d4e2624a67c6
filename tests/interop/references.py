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


def make_vgg(depth, batch_norm):
    """Returns torchvision's VGG network."""
    make = getattr(library("torchvision").models, f"vgg{depth}{'_bn' * batch_norm}")
    return without_dropout(randomize(make(init_weights=False)))


def make_small_vgg():
    """Returns a narrow network of torchvision's class, of 1 and 2 convolutions and 16 units."""
    vgg, torch = library("torchvision").models.vgg, library("torch")
    layers = vgg.make_layers([8, "M", 16, 16, "M"], True)
    with torch.device("meta"):  # the hidden layers would take seconds
        module = vgg.VGG(layers, init_weights=False)
    for place, sizes in {0: (16 * 49, 16), 3: (16, 16), 6: (16, 10)}.items():
        module.classifier[place] = torch.nn.Linear(*sizes)
    return without_dropout(randomize(module))


def make_alexnet():
    """Returns torchvision's AlexNet."""
    return without_dropout(randomize(library("torchvision").models.alexnet()))


SMALL_FILTERS = (4, 8, 12, 8, 6)


def make_small_alexnet():
    """Returns torchvision's AlexNet with `SMALL_FILTERS` and 16 units, without dropout."""
    torch = library("torch")
    with torch.device("meta"):
        module = library("torchvision").models.alexnet()
    inputs = 3
    for place, filters in zip((0, 3, 6, 8, 10), SMALL_FILTERS, strict=True):
        old = module.features[place]
        shape = (inputs, filters, old.kernel_size, old.stride, old.padding)
        module.features[place], inputs = torch.nn.Conv2d(*shape), filters
    for place, sizes in {1: (inputs * 36, 16), 4: (16, 16), 6: (16, 10)}.items():
        module.classifier[place] = torch.nn.Linear(*sizes)
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
