"""Signals and gradients of the layers: figure 7 of the paper, and its argument on gradients.

Section 4.1 argues that plain networks do not degrade because gradients vanish: with batch
normalisation, signals have variances that are not zero and gradients healthy norms. Figure 7 shows
that the responses of residual networks are smaller than those of plain ones.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float, Int, PyTree

from resnet_jax.analysis.features import forward, kernels_of, output_shapes
from resnet_jax.analysis.summarize import Layer, summarize
from resnet_jax.errors import InputError
from resnet_jax.models import features

Loss = Callable[[Float[Array, "n classes"], Int[Array, " n"]], Float[Array, ""]]


def layer_responses(
    model: nn.Module,
    variables: Mapping[str, PyTree],
    images: Iterable[Float[Array | np.ndarray, "n h w c"]],
) -> dict[str, float]:
    """Returns the standard deviations of the responses of the 3x3 convolutions (figure 7).

    The response of a layer is its output after batch normalisation, before the nonlinearity and the
    addition; without batch normalisation it is the output of the convolution. The deviation is over
    all images, positions and channels. Batch normalisation uses its running statistics.

    Args:
      model: Any network of the registry, or another whose call takes `train`.
      variables: Its variables.
      images: Batches of images, normalised; each size of batch is compiled once.

    Returns:
      The deviations by the name of the convolution, such as "stage1/block1/conv1", in the order of
      the layers.

    Raises:
      InputError: There are no images, or the network has no 3x3 convolution.
    """
    batches = iter(images)
    first = next(batches, None)
    if first is None:
        raise InputError("responses are measured on at least one batch of images")
    found = _response_modules(model, first)
    layers = [
        layer for layer in found if (layer.kind, (layer.filter or ())[:2]) == ("conv", (3, 3))
    ]
    if not layers:
        raise InputError(f"{type(model).__name__} has no 3x3 convolutions")

    @jax.jit
    def sums(
        variables: Mapping[str, PyTree], batch: Float[Array, "n h w c"]
    ) -> list[Float[Array, "2 n d"]]:
        names = [found[layer] for layer in layers]
        outputs = features(model, variables, batch, names)
        values = [outputs[name].astype(jnp.float32) for name in names]
        return [jnp.stack([y.sum((1, 2)), lax.square(y).sum((1, 2))]) for y in values]

    totals = np.zeros((len(layers), 2))
    examples = 0
    for batch in itertools.chain([first], batches):
        # On the host in float64: the numbers do not depend on the size of the batches.
        of_batch = jax.device_get(sums(variables, batch))
        totals += [both.sum(axis=(1, 2), dtype=np.float64) for both in of_batch]
        examples += len(batch)
    counts = examples * np.array([[layer.activations] for layer in layers])
    mean, mean_of_squares = (totals / counts).T
    deviations = np.sqrt(np.maximum(mean_of_squares - mean**2, 0))
    return {layer.name: float(std) for layer, std in zip(layers, deviations, strict=True)}


@dataclasses.dataclass(frozen=True)
class Gradients:
    """The gradients and signals of the layers with a kernel, in order.

    Attributes:
      layers: Names of the convolutions and fully connected layers.
      kernel: L2 norm of the gradient of the loss for the kernel.
      relative: The same divided by the norm of the kernel itself.
      response: L2 norm of the gradient for the layer's response to all images together, see
        `layer_responses`.
      signal: Standard deviation of the response.
    """

    layers: tuple[str, ...]
    kernel: Float[np.ndarray, " layers"]
    relative: Float[np.ndarray, " layers"]
    response: Float[np.ndarray, " layers"]
    signal: Float[np.ndarray, " layers"]


def cross_entropy(logits: Float[Array, "n classes"], labels: Int[Array, " n"]) -> Float[Array, ""]:
    """Returns the mean cross-entropy of the labels, in nats."""
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1).mean()


def gradient_norms(
    model: nn.Module,
    variables: Mapping[str, PyTree],
    images: Float[Array | np.ndarray, "n h w c"],
    labels: Int[Array | np.ndarray, " n"],
    *,
    loss: Loss = cross_entropy,
) -> Gradients:
    """Returns norms of the gradients of a loss, layer by layer, in training on one batch.

    Batch normalisation uses the statistics of the batch. Weight decay and auxiliary heads have no
    part in it.

    Args:
      model: Any network of the registry, or another whose call takes `train`.
      variables: Its variables.
      images: The images, normalised.
      labels: Their classes.
      loss: Of the logits and the labels.

    Raises:
      InputError: The network refuses the images, or their number.
    """
    kernels = kernels_of(variables["params"])
    found = _response_modules(model, images)
    names = {layer.name: module for layer, module in found.items() if layer.name in kernels}
    n, height, width, channels = images.shape
    shapes = output_shapes(model, (height, width, channels))
    shifts = {module: jnp.zeros((n, *shapes[module])) for module in names.values()}

    def loss_of(params: PyTree, shifts: dict[str, Array]) -> tuple[Array, dict[str, Array]]:
        changed = {**variables, "params": params}
        logits, outputs = forward(model, changed, jnp.asarray(images), shifts, train=True)
        return loss(logits, jnp.asarray(labels)), outputs

    @jax.jit
    def measure(params: PyTree) -> list[list[Array]]:
        (of, of_responses), outputs = jax.grad(loss_of, (0, 1), has_aux=True)(params, shifts)
        of_kernels = kernels_of(of)
        return [
            [_norm(of_kernels[name]), _norm(of_responses[module]), _std(outputs[module])]
            for name, module in names.items()
        ]

    kernel, response, signal = np.array(jax.device_get(measure(variables["params"]))).T
    sizes = np.array([_norm(kernels[name]) for name in names])
    return Gradients(tuple(names), kernel, kernel / sizes, response, signal)


def _norm(x: Float[Array, "..."]) -> Float[Array, ""]:
    return jnp.linalg.norm(x.astype(jnp.float32).ravel())


def _std(x: Float[Array, "..."]) -> Float[Array, ""]:
    return x.astype(jnp.float32).std()


def _response_modules(
    model: nn.Module, images: Float[Array | np.ndarray, "n h w c"]
) -> dict[Layer, str]:
    """Returns, of convolutions and fully connected layers, the submodule that gives the response.

    That is the normalisation of a layer's output, or the layer itself where there is none.
    """
    _, height, width, channels = images.shape
    layers = summarize(model, (height, width, channels)).layers
    norms = {layer.sources: layer.name for layer in layers if layer.statistics}
    return {
        layer: norms.get((layer.name,), layer.name)
        for layer in layers
        if layer.kind in ("conv", "dense")
    }
