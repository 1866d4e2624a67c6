"""The paper's tables and figures: published numbers, and the runs that measure them anew.

Numbers are of He, Zhang, Ren and Sun, arXiv 1512.03385; errors are in percent. Rows without configs
are numbers that the paper cites from others, or of runs that no config describes.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

from resnet_jax.evaluation import ProtocolName

METRICS: Mapping[str, str] = {
    "train_error": "training error (%)",
    "running_error": "training error while training (%)",
    "top1_error": "top-1 error (%)",
    "top5_error": "top-5 error (%)",
    "mean_response": "mean response",
    "multiply_adds": "multiply-adds (1e9)",
}
"""The names of the metrics.

`train_error` is the error of the last state on all training images in evaluation mode, and
`running_error` the mean of the logged training errors over the last twentieth of the steps.
"""


@dataclasses.dataclass(frozen=True)
class Row:
    """A network of a table, or a curve of a figure.

    Attributes:
      label: Its name in the paper.
      configs: Its run, as `FILE:NAME` of `configs/`; of several, the mean of their probabilities is
        evaluated. Of "sizes" the name of a network.
      paper: The published numbers by metric.
    """

    label: str
    configs: tuple[str, ...] = ()
    paper: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A table or a figure.

    Attributes:
      title: Its heading.
      data: The data that its runs need.
      cost: The steps of a run by its config, and times that were measured.
      metrics: What is measured of each row.
      rows: Its networks.
      kind: What is measured of runs and drawn: numbers, errors against iterations, responses of
        layers; or "sizes" of networks, without runs.
      protocol: How test images are seen.
    """

    title: str
    data: str
    cost: str
    metrics: tuple[str, ...]
    rows: tuple[Row, ...]
    kind: Literal["numbers", "sizes", "curves", "responses"] = "numbers"
    protocol: ProtocolName = "single_crop"


def _errors(top1: float | None = None, top5: float | None = None) -> Mapping[str, float]:
    given = {"top1_error": top1, "top5_error": top5}
    return {metric: error for metric, error in given.items() if error is not None}


def _cifar(kind: str, *depths: int) -> tuple[Row, ...]:
    """Returns rows of CIFAR-10 networks, the residual ones with the numbers of table 6."""
    name = {"plain": "plain", "resnet": "ResNet"}[kind]
    errors = _TABLE6 if kind == "resnet" else {}
    return tuple(
        Row(f"{name}-{depth}", (f"cifar10.py:{kind}{depth}",), _errors(errors.get(depth)))
        for depth in depths
    )


_TABLE6 = {20: 8.75, 32: 7.51, 44: 7.17, 56: 6.97, 110: 6.43, 1202: 7.93}
_IMAGENET = "ImageNet 2012, a folder {train,validation}/<class>/* or tfds"
_CIFAR = "CIFAR-10, a folder {train,test}/<class>/* or tfds"
_CIFAR_COST = "64,000 steps of 128 images a run; ResNet-20 takes 2.5 ms a step on an H100"
_IMAGENET_COST = "600,000 steps of 256 images a run; ResNet-50 takes 43 ms a step on an H100"
_PLAIN_34 = Row("plain-34", ("imagenet.py:plain34",), _errors(28.54, 10.02))
_RESNET_34 = {
    "A": Row("ResNet-34 A", ("imagenet.py:resnet34_A",), _errors(25.03, 7.76)),
    "B": Row("ResNet-34 B", ("imagenet.py:resnet34_B",), _errors(24.52, 7.46)),
    "C": Row("ResNet-34 C", ("imagenet.py:resnet34_C",), _errors(24.19, 7.40)),
}
_TABLE2 = (
    Row("plain-18", ("imagenet.py:plain18",), _errors(27.94)),
    Row("plain-34", ("imagenet.py:plain34",), _errors(28.54)),
    Row("ResNet-18 A", ("imagenet.py:resnet18_A",), _errors(27.88)),
    Row("ResNet-34 A", ("imagenet.py:resnet34_A",), _errors(25.03)),
)
_TOP1, _BOTH = ("top1_error",), ("top1_error", "top5_error")

EXPERIMENTS: Mapping[str, Experiment] = {
    "degradation": Experiment(
        "Degradation: plain and residual networks on handwritten digits",
        data="digits, part of the package",
        cost="300 steps of 64 images a run; 3.6 minutes in all on two CPU cores",
        metrics=("train_error", "running_error", "top1_error"),
        rows=tuple(
            Row(f"{label}-{depth}", (f"degradation.py:{kind}{depth}",))
            for kind, label in (("plain", "plain"), ("resnet", "ResNet"))
            for depth in (8, 20, 32)
        ),
        kind="curves",
    ),
    "figure1": Experiment(
        "Figure 1: plain networks on CIFAR-10",
        data=_CIFAR,
        cost=_CIFAR_COST,
        metrics=("running_error", "top1_error"),
        rows=_cifar("plain", 20, 56),
        kind="curves",
    ),
    "figure4": Experiment(
        "Figure 4: plain and residual networks of 18 and 34 layers on ImageNet",
        data=_IMAGENET,
        cost=_IMAGENET_COST,
        metrics=("running_error", "top1_error"),
        rows=tuple(Row(row.label, row.configs) for row in _TABLE2),
        kind="curves",
    ),
    "figure6": Experiment(
        "Figure 6: plain and residual networks on CIFAR-10",
        data=_CIFAR,
        cost=_CIFAR_COST,
        metrics=("running_error", "top1_error"),
        rows=(*_cifar("plain", 20, 32, 44, 56, 110), *_cifar("resnet", 20, 32, 44, 56, 110, 1202)),
        kind="curves",
    ),
    "figure7": Experiment(
        "Figure 7: standard deviations of layer responses on CIFAR-10",
        data=_CIFAR,
        cost=_CIFAR_COST,
        metrics=("mean_response",),
        rows=tuple(
            Row(row.label, row.configs)
            for row in (*_cifar("plain", 20, 56), *_cifar("resnet", 20, 56, 110))
        ),
        kind="responses",
    ),
    "table1": Experiment(
        "Table 1: multiply-adds of the ImageNet networks",
        data="none",
        cost="a few seconds, no training",
        metrics=("multiply_adds",),
        rows=tuple(
            Row(f"{depth}-layer", (f"resnet{depth}",), {"multiply_adds": multiply_adds})
            for depth, multiply_adds in ((18, 1.8), (34, 3.6), (50, 3.8), (101, 7.6), (152, 11.3))
        ),
        kind="sizes",
    ),
    "table2": Experiment(
        "Table 2: plain and residual networks on ImageNet, ten crops",
        data=_IMAGENET,
        cost=_IMAGENET_COST,
        metrics=_TOP1,
        rows=_TABLE2,
        protocol="ten_crop",
    ),
    "table3": Experiment(
        "Table 3: shortcuts and depths on ImageNet, ten crops",
        data=_IMAGENET,
        cost=_IMAGENET_COST,
        metrics=_BOTH,
        rows=(
            Row("VGG-16", ("vgg.py:vgg16",), _errors(28.07, 9.33)),
            Row("GoogLeNet", ("googlenet.py:googlenet",), _errors(top5=9.15)),
            Row("PReLU-net", (), _errors(24.27, 7.38)),
            _PLAIN_34,
            *_RESNET_34.values(),
            Row("ResNet-50", ("imagenet.py:resnet50",), _errors(22.85, 6.71)),
            Row("ResNet-101", ("imagenet.py:resnet101",), _errors(21.75, 6.05)),
            Row("ResNet-152", ("imagenet.py:resnet152",), _errors(21.43, 5.71)),
        ),
        protocol="ten_crop",
    ),
    "table4": Experiment(
        "Table 4: single networks on ImageNet, several scales",
        data=_IMAGENET,
        cost=_IMAGENET_COST,
        metrics=_BOTH,
        rows=(
            Row("VGG (ILSVRC'14, test set)", (), _errors(top5=8.43)),
            Row("GoogLeNet", (), _errors(top5=7.89)),
            Row("VGG (v5)", (), _errors(24.4, 7.1)),
            Row("PReLU-net", (), _errors(21.59, 5.71)),
            Row("BN-inception", (), _errors(21.99, 5.81)),
            Row("ResNet-34 B", ("imagenet.py:resnet34_B",), _errors(21.84, 5.71)),
            Row("ResNet-34 C", ("imagenet.py:resnet34_C",), _errors(21.53, 5.60)),
            Row("ResNet-50", ("imagenet.py:resnet50",), _errors(20.74, 5.25)),
            Row("ResNet-101", ("imagenet.py:resnet101",), _errors(19.87, 4.60)),
            Row("ResNet-152", ("imagenet.py:resnet152",), _errors(19.38, 4.49)),
        ),
        protocol="multi_scale",
    ),
    "table5": Experiment(
        # The labels of the test set are not public.
        "Table 5: ensembles on ImageNet, several scales (paper: test set, ours: validation set)",
        data=_IMAGENET,
        cost=_IMAGENET_COST,
        metrics=("top5_error",),
        rows=(
            Row("VGG (ILSVRC'14)", (), _errors(top5=7.32)),
            Row("GoogLeNet", (), _errors(top5=6.66)),
            Row("VGG (v5)", (), _errors(top5=6.8)),
            Row("PReLU-net", (), _errors(top5=4.94)),
            Row("BN-inception", (), _errors(top5=4.82)),
            # "Six models of different depth", of which only the two of 152 layers are named.
            Row(
                "ResNet, six networks",
                (
                    "imagenet.py:resnet34_B",
                    "imagenet.py:resnet34_C",
                    "imagenet.py:resnet50",
                    "imagenet.py:resnet101",
                    *("imagenet.py:resnet152",) * 2,
                ),
                _errors(top5=3.57),
            ),
        ),
        protocol="multi_scale",
    ),
    "table6": Experiment(
        "Table 6: residual networks on CIFAR-10 (paper's ResNet-110: best of five, mean 6.61)",
        data=_CIFAR,
        cost=_CIFAR_COST,
        metrics=_TOP1,
        rows=_cifar("resnet", 20, 32, 44, 56, 110, 1202),
    ),
}
"""The experiments by name."""
