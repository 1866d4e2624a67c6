"""The form in which convolutions and max-pools are compiled: plain, or fast on this platform.

The fast form differs by rounding only. It has gradients of its own (`jax.custom_vjp`): reverse mode
takes them any number of times, forward mode (`jax.jvp`) does not. What is fast depends on the
platform, the version of jaxlib and the shapes, never on a timing; docs/performance.md has the
measurements.
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Concatenate, Literal, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype
from jax import lax
from jaxtyping import Array, Float, UInt8

Lowering = Literal["plain", "fast"]

P = ParamSpec("P")
Module = TypeVar("Module", bound=nn.Module)
Output = TypeVar("Output")
Sides = tuple[int, int]  # of a kernel or a window, its strides or dilations: vertical, horizontal
Padding = tuple[tuple[int, int], tuple[int, int]]  # before and after, the same

_IMAGES = ("NHWC", "HWIO", "NHWC")
# oneDNN takes convolutions of these types, unless a kernel is reversed or an input dilated.
_ONEDNN_TYPES = {jnp.dtype(jnp.bfloat16)} if jax.__version_info__ >= (0, 12) else set()
_platform: contextvars.ContextVar[str | None] = contextvars.ContextVar("platform", default=None)


@contextlib.contextmanager
def lower_to(lowering: Lowering) -> Iterator[None]:
    """Traces the layers inside in this form."""
    token = _platform.set(jax.default_backend() if lowering == "fast" else None)
    try:
        yield
    finally:
        _platform.reset(token)


def compiler_options(lowering: Lowering | None, dtype: Dtype) -> dict[str, bool | str]:
    """Returns the options of XLA that programs in this form are compiled with; None is plain.

    In float32, Eigen computes convolutions and products in less time than YNNPACK, XLA's default,
    which is faster at sums only. oneDNN has been no faster there, and some programs with it cannot
    be cached.
    """
    if lowering != "fast" or jax.default_backend() != "cpu":
        return {}
    if jnp.dtype(dtype) in _ONEDNN_TYPES:
        return {"xla_cpu_experimental_onednn_custom_call": True}
    if jnp.dtype(dtype) == jnp.float32:
        return {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}
    return {}


def lowered(
    method: Callable[Concatenate[Module, P], Output],
) -> Callable[Concatenate[Module, P], Output]:
    """Returns a network's method with its layers in the form of the network's field `lowering`."""

    @functools.wraps(method)
    def call(self: Module, *args: P.args, **kwargs: P.kwargs) -> Output:
        with lower_to(self.lowering):  # pyrefly: ignore
            return method(self, *args, **kwargs)

    return call


def plain_form(network: nn.Module) -> nn.Module:
    """Returns the network with its layers in the plain form."""
    return network.clone(lowering="plain") if hasattr(network, "lowering") else network


def conv_general_dilated(
    lhs: Float[Array, "n h w c"],
    rhs: Float[Array, "k l c d"],
    window_strides: Sequence[int],
    padding: Sequence[tuple[int, int]] | str,
    *,
    lhs_dilation: Sequence[int],
    rhs_dilation: Sequence[int],
    dimension_numbers: lax.ConvDimensionNumbers,
    feature_group_count: int,
    precision: lax.PrecisionLike,
) -> Float[Array, "n h2 w2 d"]:
    """Returns `lax.conv_general_dilated` of `nn.Conv`'s arguments, in the form that is asked for.

    The plain form is the only one of convolutions in groups, with dilated inputs, with padding by
    a word or with a precision of their own.
    """
    special = feature_group_count == 1 and tuple(lhs_dilation) == (1, 1) and precision is None
    if special and _platform.get() in ("cpu", "gpu") and not isinstance(padding, str):
        (stride, step), (first, second), (d, e) = window_strides, padding, rhs_dilation
        if _platform.get() == "gpu":
            if (stride, step, d, e) == (2, 2, 1, 1) and lhs.shape[3] <= 4:
                return _convolve_blocks(lhs, rhs, (first, second))
        elif (*rhs.shape[:2], *first, *second) == (1, 1, 0, 0, 0, 0):
            return _project(lhs[:, ::stride, ::step], rhs[0, 0])
        else:
            return _convolve(lhs, rhs, (stride, step), (first, second), (d, e))
    return lax.conv_general_dilated(
        lhs,
        rhs,
        window_strides,
        padding,
        lhs_dilation,
        rhs_dilation,
        dimension_numbers,
        feature_group_count,
        precision=precision,
    )


Conv = functools.partial(nn.Conv, conv_general_dilated_cls=lambda: conv_general_dilated)
"""`nn.Conv` in the form that is asked for."""


@jax.custom_vjp
def _project(x: Float[Array, "n h w c"], kernel: Float[Array, "c d"]) -> Float[Array, "n h w d"]:
    """Returns a 1x1 convolution as a matrix product: XLA's gradient for its kernel is slow."""
    return jnp.dot(x, kernel)


def _project_gradients(
    saved: tuple[Float[Array, "n h w c"], Float[Array, "c d"]], dy: Float[Array, "n h w d"]
) -> tuple[Float[Array, "n h w c"], Float[Array, "c d"]]:
    x, kernel = saved
    return jnp.dot(dy, kernel.T), _products(x, dy).astype(kernel.dtype)


_project.defvjp(lambda x, kernel: (_project(x, kernel), (x, kernel)), _project_gradients)


def _products(x: Float[Array, "*n c"], y: Float[Array, "*n d"]) -> Float[Array, "c d"]:
    """Returns the sum over all rows of their outer products, at least in float32.

    Rows are one axis: for several, XLA would transpose `x` by a slow copy.
    """
    x, y = x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1])
    dtype = x.dtype if x.dtype.itemsize > 4 else jnp.float32
    return lax.dot_general(x, y, (((0,), (0,)), ((), ())), preferred_element_type=dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _convolve(
    x: Float[Array, "n h w c"],
    kernel: Float[Array, "k l c d"],
    strides: Sides,
    padding: Padding,
    dilation: Sides,
) -> Float[Array, "n h2 w2 d"]:
    """Returns a convolution whose gradient for the kernel is computed by matrix products."""
    return _plain(x, kernel, strides, padding, dilation)


def _plain(
    x: Float[Array, "n h w c"],
    kernel: Float[Array, "k l c d"],
    strides: Sides,
    padding: Padding,
    dilation: Sides,
) -> Float[Array, "n h2 w2 d"]:
    if x.dtype not in _ONEDNN_TYPES and _is_small(x, kernel, dilation):
        padded = jnp.pad(x, ((0, 0), *padding, (0, 0)))
        x, padding = lax.optimization_barrier(padded), ((0, 0), (0, 0))
    return lax.conv_general_dilated(
        x, kernel, strides, padding, rhs_dilation=dilation, dimension_numbers=_IMAGES
    )


def _is_small(x: Float[Array, "n h w c"], kernel: Float[Array, "k l c d"], dilation: Sides) -> bool:
    """Returns whether images without their padding are smaller than a kernel.

    XLA computes their convolutions by plain loops, in up to a hundred times the time of Eigen.
    """
    reaches = (step * (size - 1) for size, step in zip(kernel.shape, dilation, strict=False))
    return any(size <= reach for size, reach in zip(x.shape[1:], reaches, strict=False))


def _convolve_gradients(
    strides: Sides,
    padding: Padding,
    dilation: Sides,
    saved: tuple[Float[Array, "n h w c"], Float[Array, "k l c d"]],
    dy: Float[Array, "n h2 w2 d"],
) -> tuple[Float[Array, "n h w c"], Float[Array, "k l c d"]]:
    x, kernel = saved
    # Else XLA would make the slices of all layers before the gradients come, and keep them.
    x, dy = lax.optimization_barrier((x, dy))
    if x.dtype in _ONEDNN_TYPES or _is_small(dy, kernel, dilation):
        dx = _input_gradient(dy, kernel, x.shape, strides, padding, dilation)
    else:
        (dx,) = jax.vjp(lambda x: _plain(x, kernel, strides, padding, dilation), x)[1](dy)
    # XLA's own is as fast there in float32; products are oneDNN's in bfloat16.
    if 32 <= x.shape[3] < 128 and x.dtype not in _ONEDNN_TYPES:
        (dkernel,) = jax.vjp(lambda k: _plain(x, k, strides, padding, dilation), kernel)[1](dy)
    else:
        dkernel = _kernel_gradient(x, dy, kernel.shape, strides, padding, dilation)
    return dx, dkernel.astype(kernel.dtype)


_convolve.defvjp(
    lambda x, kernel, *options: (_convolve(x, kernel, *options), (x, kernel)), _convolve_gradients
)


def _input_gradient(
    dy: Float[Array, "n h2 w2 d"],
    kernel: Float[Array, "k l c d"],
    shape: Sequence[int],
    strides: Sides,
    padding: Padding,
    dilation: Sides,
) -> Float[Array, "n h w c"]:
    """Returns the gradient for the input as a plain convolution of stride 1.

    The barriers keep XLA from folding reversal and zeros into the convolution.
    """
    flipped = lax.optimization_barrier(jnp.swapaxes(kernel[::-1, ::-1], 2, 3))
    spread = [(0, 0, stride - 1) for stride in strides]
    dy = lax.pad(dy, jnp.zeros((), dy.dtype), [(0, 0, 0), *spread, (0, 0, 0)])
    dy = lax.optimization_barrier(dy) if max(strides) > 1 else dy

    def pads(axis: int) -> tuple[int, int]:
        before = padding[axis][0]
        reach = dilation[axis] * (kernel.shape[axis] - 1)
        return reach - before, shape[axis + 1] - dy.shape[axis + 1] + before

    return _plain(dy, flipped, (1, 1), (pads(0), pads(1)), dilation)


def _kernel_gradient(
    x: Float[Array, "n h w c"],
    dy: Float[Array, "n h2 w2 d"],
    shape: Sequence[int],
    strides: Sides,
    padding: Padding,
    dilation: Sides,
) -> Float[Array, "k l c d"]:
    """Returns the gradient for a kernel: a matrix product for each of its pixels.

    A product is fast from about 128 channels up. Where there are few, four neighbouring outputs
    and all inputs that they read make one row, and the part of the product that does not belong to
    the kernel is thrown away.
    """
    height, width, filters = dy.shape[1:]
    channels = x.shape[3]
    outputs_per_row = 4 if channels < 32 else 1
    blocks = -(-width // outputs_per_row)
    reach = strides[1] * (outputs_per_row - 1) + dilation[1] * (shape[1] - 1) + 1  # inputs of a row
    (top, bottom), (left, _) = padding
    right = strides[1] * outputs_per_row * (blocks - 1) + reach - left - x.shape[2]
    x = lax.pad(
        x, jnp.zeros((), x.dtype), [(0, 0, 0), (top, bottom, 0), (left, right, 0), (0, 0, 0)]
    )
    dy = jnp.pad(dy, ((0, 0), (0, 0), (0, blocks * outputs_per_row - width), (0, 0)))
    dy = dy.reshape(-1, height, blocks, outputs_per_row * filters)

    def every(x: Array, start: int, count: int, step: int, axis: int) -> Array:
        return lax.slice_in_dim(x, start, start + step * (count - 1) + 1, step, axis)

    columns = [every(x, j, blocks, strides[1] * outputs_per_row, axis=2) for j in range(reach)]
    if outputs_per_row == 1:
        columns = columns[:: dilation[1]]
    else:
        columns = [lax.optimization_barrier(jnp.concatenate(columns, axis=-1))]
    distance = 1 if outputs_per_row == 1 else dilation[1]  # of the kernel's columns in a product
    rows = []
    for i in range(0, dilation[0] * shape[0], dilation[0]):
        products = [_products(every(c, i, height, strides[0], axis=1), dy) for c in columns]
        product = jnp.concatenate(products).reshape(-1, channels, outputs_per_row, filters)
        taps = [
            every(product[:, :, t], strides[1] * t, shape[1], distance, 0)
            for t in range(outputs_per_row)
        ]
        rows.append(sum(taps[1:], taps[0]))
    return jnp.stack(rows)


def _convolve_blocks(
    x: Float[Array, "n h w c"], kernel: Float[Array, "k l c d"], padding: Padding
) -> Float[Array, "n h2 w2 d"]:
    """Returns a convolution of stride 2 as one of stride 1 over blocks of 2x2 pixels.

    Four times the channels, and a kernel of half the sides: three channels would leave most of a
    tensor core empty.
    """
    height, width = (
        (size + sum(pads) - side) // 2 + 1
        for size, pads, side in zip(x.shape[1:3], padding, kernel.shape[:2], strict=True)
    )
    tall, wide = (-(-side // 2) for side in kernel.shape[:2])
    rows, columns = height + tall - 1, width + wide - 1
    (top, _), (left, _) = padding
    zero, none = jnp.zeros((), x.dtype), (0, 0, 0)
    below, beside = 2 * rows - top - x.shape[1], 2 * columns - left - x.shape[2]
    x = lax.pad(x, zero, [none, (top, below, 0), (left, beside, 0), none])
    x = x.reshape(-1, rows, 2, columns, 2, x.shape[3]).transpose(0, 1, 3, 2, 4, 5)
    x = x.reshape(-1, rows, columns, 4 * x.shape[-1])
    added = [(0, 2 * tall - kernel.shape[0], 0), (0, 2 * wide - kernel.shape[1], 0)]
    kernel = lax.pad(kernel, zero, [*added, none, none])
    kernel = kernel.reshape(tall, 2, wide, 2, *kernel.shape[2:])
    kernel = kernel.transpose(0, 2, 1, 3, 4, 5).reshape(tall, wide, -1, kernel.shape[-1])
    return _plain(x, kernel, (1, 1), ((0, 0), (0, 0)), (1, 1))


def max_pool(
    x: Float[Array, "n h w c"],
    window: Sides,
    *,
    strides: Sides = (1, 1),
    padding: Padding | Literal["SAME", "VALID"] = "VALID",
) -> Float[Array, "n h2 w2 c"]:
    """Returns `nn.max_pool` in the form that is asked for.

    Of equal values the first gets the gradient.
    """
    if _platform.get() not in ("cpu", "gpu"):
        return nn.max_pool(x, window, strides, padding)
    if isinstance(padding, str):
        pads = lax.padtype_to_pads(x.shape[1:3], window, strides, padding)
        padding = (tuple(pads[0]), tuple(pads[1]))
    return _max_pool(x, window, strides, padding)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _max_pool(
    x: Float[Array, "n h w c"], window: Sides, strides: Sides, padding: Padding
) -> Float[Array, "n h2 w2 c"]:
    return nn.max_pool(x, window, strides, padding)


def _max_and_index(
    x: Float[Array, "n h w c"], window: Sides, strides: Sides, padding: Padding
) -> tuple[Float[Array, "n h2 w2 c"], tuple[UInt8[Array, "n h2 w2 c"], Sides]]:
    """Returns the maxima, and where each stands in its window, counted by rows."""
    (top, bottom), (left, right) = padding
    least = jnp.array(-jnp.inf, x.dtype)
    padded = lax.pad(x, least, [(0, 0, 0), (top, bottom, 0), (left, right, 0), (0, 0, 0)])
    rows = (padded.shape[1] - window[0]) // strides[0] * strides[0] + 1
    columns = (padded.shape[2] - window[1]) // strides[1] * strides[1] + 1
    maximum = padded[:, : rows : strides[0], : columns : strides[1]]
    index = jnp.zeros(maximum.shape, jnp.uint8)
    for number in range(1, window[0] * window[1]):
        i, j = divmod(number, window[1])
        other = padded[:, i : i + rows : strides[0], j : j + columns : strides[1]]
        later = (other > maximum) | jnp.isnan(other)
        index = jnp.where(later, jnp.uint8(number), index)
        maximum = jnp.where(later, other, maximum)
    return maximum, (index, (x.shape[1], x.shape[2]))


def _max_pool_gradient(
    window: Sides,
    strides: Sides,
    padding: Padding,
    saved: tuple[UInt8[Array, "n h2 w2 c"], Sides],
    dy: Float[Array, "n h2 w2 c"],
) -> tuple[Float[Array, "n h w c"]]:
    """Returns the gradient: the inputs whose positions have one remainder by the strides at once.

    XLA's own (`select_and_scatter`) compares all windows again, one after the other on a CPU, and
    in no fixed order on a GPU.
    """
    index, (height, width) = saved
    (top, _), (left, _) = padding
    rows, columns = (
        max(-(-(before + size) // stride), of + (side - 1) // stride)
        for (before, _), size, stride, of, side in zip(
            padding, (height, width), strides, dy.shape[1:3], window, strict=True
        )
    )

    def of_remainder(first_row: int, first_column: int) -> Array:
        total = jnp.zeros((dy.shape[0], rows, columns, dy.shape[3]), dy.dtype)
        for i in range(first_row, window[0], strides[0]):
            for j in range(first_column, window[1], strides[1]):
                own = jnp.where(index == i * window[1] + j, dy, jnp.zeros((), dy.dtype))
                down, along = i // strides[0], j // strides[1]
                vertical = (down, rows - dy.shape[1] - down)
                horizontal = (along, columns - dy.shape[2] - along)
                total += jnp.pad(own, ((0, 0), vertical, horizontal, (0, 0)))
        return total

    dx = jnp.stack(
        [
            jnp.stack([of_remainder(i, j) for j in range(strides[1])], axis=3)
            for i in range(strides[0])
        ],
        axis=2,
    )
    dx = dx.reshape(dy.shape[0], rows * strides[0], columns * strides[1], dy.shape[3])
    return (dx[:, top : top + height, left : left + width],)


_max_pool.defvjp(_max_and_index, _max_pool_gradient)


def normalize(
    x: Float[Array, "groups m h w c"],
    mean: Float[Array, "groups 1 1 1 c"],
    factor: Float[Array, "groups 1 1 1 c"],
    bias: Float[Array, "1 1 1 1 c"],
) -> Float[Array, "groups m h w c"]:
    """Returns `(x - mean) * factor + bias`, at least in float32, in the form that is asked for."""
    if _platform.get() not in ("cpu", "gpu"):
        return _normalize_plain(x, mean, factor, bias)
    return _normalize(x, mean, factor, bias)


def _normalize_plain(x: Array, mean: Array, factor: Array, bias: Array) -> Array:
    return (x.astype(mean.dtype) - mean) * factor + bias


_normalize = jax.custom_vjp(_normalize_plain)


def _normalize_gradients(
    saved: tuple[Array, Array, Array], dy: Float[Array, "groups m h w c"]
) -> tuple[Array, Array, Array, Array]:
    """Returns the gradients from `x` alone: XLA would keep `x - mean` too, and sum once more."""
    x, mean, factor = saved
    centred = lax.optimization_barrier(x).astype(mean.dtype) - mean
    dbias = jnp.sum(dy, axis=(1, 2, 3), keepdims=True)
    dfactor = jnp.sum(dy * centred, axis=(1, 2, 3), keepdims=True)
    dx = (dy * factor).astype(x.dtype)
    return dx, -factor * dbias, dfactor, dbias.sum(axis=0, keepdims=True)


_normalize.defvjp(
    lambda x, mean, factor, bias: (_normalize(x, mean, factor, bias), (x, mean, factor)),
    _normalize_gradients,
)
