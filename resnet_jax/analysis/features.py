"""Outputs of submodules, filters of the first layer, patches that excite a unit, and Grad-CAM.

Networks are those of the registry, or others whose call takes `train`. A layer is the path of a
submodule, such as "stage2/block1/conv1".
"""

import functools
import heapq
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util
from jaxtyping import Array, Float, PyTree

from resnet_jax.analysis.summarize import summarize
from resnet_jax.data import Box
from resnet_jax.errors import InputError
from resnet_jax.models import features, variable_shapes

Variables = Mapping[str, PyTree]
ImageShape = tuple[int, int, int]  # height, width, channels


def output_shapes(model: nn.Module, image_shape: ImageShape) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each submodule's output for an image, in the order of computation."""
    shapes: dict[str, tuple[int, ...]] = {}

    def record(call: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext):
        y = call(*args, **kwargs)
        if context.method_name == "__call__" and context.module.path and y is not None:
            shapes["/".join(context.module.path)] = y.shape[1:]
        return y

    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    with nn.intercept_methods(record):
        apply = functools.partial(model.apply, train=False)
        jax.eval_shape(apply, variable_shapes(model, image_shape), images)
    return shapes


def forward(
    model: nn.Module,
    variables: Variables,
    images: Float[Array, "n h w c"],
    shifts: Mapping[str, Array],
    *,
    train: bool = False,
) -> tuple[Float[Array, "n classes"], dict[str, Array]]:
    """Returns the logits, and the outputs of layers, to each of which its shift is added.

    The gradient for a shift of zero is that for the output.
    """

    def shift(call: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext):
        y, name = call(*args, **kwargs), "/".join(context.module.path)
        if context.method_name == "__call__" and name in shifts:
            y = y + shifts[name].astype(y.dtype)
            context.module.sow("outputs", "output", y, reduce_fn=lambda _, last: last)
        return y

    with nn.intercept_methods(shift):
        logits, updates = model.apply(
            variables,
            images,
            train=train,
            mutable=["batch_stats", "outputs"],
            rngs={"dropout": jax.random.key(0)},
        )
    sown = cast(dict[str, Array], traverse_util.flatten_dict(updates["outputs"], sep="/"))
    return cast(Array, logits), {name: sown[f"{name}/output"] for name in shifts}


def kernels_of(params: PyTree) -> dict[str, Array]:
    """Returns the kernels by the name of their layer."""
    flat = cast(dict[tuple[str, ...], Array], traverse_util.flatten_dict(params))
    return {"/".join(path[:-1]): array for path, array in flat.items() if path[-1] == "kernel"}


def first_filters(
    model: nn.Module, variables: Variables, image_shape: ImageShape
) -> tuple[str, Float[np.ndarray, "k l c filters"]]:
    """Returns the name and the kernel of the first convolution, of one channel or three.

    Raises:
      InputError: There is none.
    """
    kernels = kernels_of(variables["params"])
    for layer in summarize(model, image_shape).layers:
        if layer.kind == "conv" and layer.sources == ("image",) and layer.name in kernels:
            kernel = np.asarray(kernels[layer.name], np.float32)
            if kernel.shape[2] in (1, 3):
                return layer.name, kernel
    raise InputError(f"{type(model).__name__} has no convolution of grey or colour images to draw")


class Patch(NamedTuple):
    """The activation of a unit, the number of the image, row and column in the layer's maps."""

    value: float
    example: int
    row: int
    column: int


def strongest_patches(
    model: nn.Module,
    variables: Variables,
    batches: Iterable[Float[Array, "n h w c"]],
    layer: str,
    unit: int,
    *,
    examples: int,
    count: int,
) -> list[Patch]:
    """Returns where a unit is excited most, one position an image, the `count` strongest first.

    The last batch may be filled up: there are so many `examples`.
    """

    @jax.jit
    def strongest(variables: Variables, images: Array) -> tuple[Array, Array, Array]:
        maps = features(model, variables, images, [layer])[layer][..., unit]
        flat = maps.reshape(len(maps), -1).astype(jnp.float32)
        rows, columns = jnp.unravel_index(flat.argmax(axis=1), maps.shape[1:])
        return flat.max(axis=1), rows, columns

    best: list[Patch] = []
    first = 0
    for images in batches:
        values, rows, columns = jax.device_get(strongest(variables, images))
        numbers = range(first, examples)
        found = map(Patch, values.tolist(), numbers, rows.tolist(), columns.tolist())
        best = heapq.nlargest(count, [*best, *found], key=lambda patch: patch.value)
        first += len(images)
    return best


def receptive_fields(
    model: nn.Module, image_shape: ImageShape, layer: str, positions: Sequence[tuple[int, int]]
) -> list[Box]:
    """Returns what positions of a layer's maps depend on, cut at the border of the image.

    Raises:
      InputError: It is not known: the submodule only rearranges.
    """
    height, width, _ = image_shape
    layers = summarize(model, image_shape).layers
    inside = [found for found in layers if f"{found.name}/".startswith(f"{layer}/")]
    if not inside:
        raise InputError(f"the receptive field of {layer} is not known; take the layer before it")
    # Of the branches of a block the one that reaches furthest, and there the last.
    widest = max(reversed(inside), key=lambda found: math.prod(found.receptive_field))
    (tall, wide), (first, second), jump = widest.receptive_field, widest.corner, widest.jump

    def box(row: int, column: int) -> Box:
        top, left = first + row * jump[0], second + column * jump[1]
        return Box(max(left, 0), max(top, 0), min(left + wide, width), min(top + tall, height))

    return [box(row, column) for row, column in positions]


def grad_cam(
    model: nn.Module,
    variables: Variables,
    image: Float[Array, "h w c"],
    layer: str,
    target: int | None = None,
) -> tuple[Float[np.ndarray, "h2 w2"], Float[np.ndarray, " classes"]]:
    """Returns Grad-CAM of a class, by default of the most probable one, and all probabilities.

    It is the rectified sum of a layer's maps, each weighted by the mean of the gradient of the
    class's logit for it (Selvaraju et al., arXiv 1610.02391, equations 1 and 2).
    """
    height, width, channels = image.shape
    shape = output_shapes(model, (height, width, channels))[layer]

    @jax.jit
    def run(variables: Variables, images: Array) -> tuple[Array, Array]:
        def logit(shift: Array) -> tuple[Array, tuple[Array, Array]]:
            logits, outputs = forward(model, variables, images, {layer: shift})
            chosen = logits[0].argmax() if target is None else target
            return logits[0, chosen], (logits[0], outputs[layer][0].astype(jnp.float32))

        gradient, (logits, maps) = jax.grad(logit, has_aux=True)(jnp.zeros((1, *shape)))
        cam = jax.nn.relu(maps @ gradient[0].mean(axis=(0, 1)))
        return cam, jax.nn.softmax(logits)

    return jax.device_get(run(variables, image[None]))
