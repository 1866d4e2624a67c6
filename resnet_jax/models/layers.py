"""Layers that several families of networks share."""

import math
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.typing import Dtype, Initializer
from jax import lax
from jaxtyping import Array, Float

from resnet_jax.errors import InputError
from resnet_jax.models.lowering import Conv

DropoutOn = Literal["outputs", "inputs"]

Vectors: TypeAlias = Callable[[Float[Array, "n h w c"], int], Float[Array, "*n d"]]
"""`cells` or `windows`."""


def normal(deviation: float | np.ndarray) -> Initializer:
    """Returns `nn.initializers.normal(deviation)`, drawn as one vector.

    The numbers are the same. XLA compiles a vector's sampler several times faster than that of more
    axes, and once for all arrays of a size.
    """

    def init(key: Array, shape: Sequence[int], dtype: Dtype = jnp.float32) -> Array:
        draw = nn.initializers.normal(deviation)
        return draw(key, (math.prod(shape),), dtype).reshape(shape)

    return init


def he_normal(key: Array, shape: Sequence[int], dtype: Dtype = jnp.float32) -> Array:
    """Draws a kernel as in He et al. 2015 (arXiv 1502.01852), over the inputs of a unit."""
    variance = np.asarray(2 / math.prod(shape[:-1]), dtype)
    return normal(np.sqrt(variance))(key, shape, dtype)


class ConvUnit(nn.Module):
    """A convolution `conv`, a normalisation `bn` if there is one, and ReLU, in inception modules.

    Attributes:
      filters: Channels of the output.
      size: Side of the kernel; every side of the input is padded with `(size - 1) / 2` zeros.
      stride: Stride.
      norm: Makes a normalisation layer, `norm(name=...)`, in place of a bias; `None`: a bias.
      kernel_init: Initialiser of the kernel.
      bias_init: Initialiser of the bias.
      dtype: Type of the arithmetic.
    """

    filters: int
    size: int = 1
    stride: int = 1
    norm: Callable[..., nn.Module] | None = None
    kernel_init: Initializer = he_normal
    bias_init: Initializer = nn.initializers.zeros
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], *, train: bool) -> Float[Array, "n h2 w2 d"]:
        """Returns the activations; `h2 = ceil(h / stride)`."""
        x = Conv(
            self.filters,
            (self.size, self.size),
            strides=self.stride,
            padding=(self.size - 1) // 2,
            use_bias=self.norm is None,
            dtype=self.dtype,
            kernel_init=self.kernel_init,
            bias_init=self.bias_init,
            name="conv",
        )(x)
        return nn.relu(x if self.norm is None else self.norm(name="bn")(x, train=train))


class HiddenLayers(nn.Module):
    """Two fully connected layers, `fc1` and `fc2`, each rectified, with dropout in training.

    Networks from AlexNet to PReLU-net have them before the head.

    Attributes:
      units: Units of each layer.
      dropout_rate: Share of the units that is dropped in training; the others are scaled up by
        `1 / (1 - dropout_rate)`, so that evaluation needs no factor. (Krizhevsky et al. and
        Caffe's first networks scale down in evaluation instead, which is the same network.)
      dropout_on: Whether the "outputs" of both layers are dropped (the papers) or their "inputs"
        (torchvision's AlexNet).
      activation: Makes the activation, `activation(name=...)`; `None`: ReLU.
      bias_init: Initialiser of the biases. Kernels start normally with deviation 0.01.
      dtype: Type of the arithmetic.
    """

    units: int = 4096
    dropout_rate: float = 0.5
    dropout_on: DropoutOn = "outputs"
    activation: Callable[..., nn.Module] | None = None
    bias_init: Initializer = nn.initializers.zeros
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*n d"], *, train: bool) -> Float[Array, "*n units"]:
        """Returns the activations of `fc2`."""
        deterministic = not train or self.is_initializing()  # init needs no key for dropout
        for i in (1, 2):
            drop = nn.Dropout(self.dropout_rate, deterministic=deterministic, name=f"dropout{i}")
            x = drop(x) if self.dropout_on == "inputs" else x
            x = nn.Dense(
                self.units,
                dtype=self.dtype,
                kernel_init=normal(0.01),
                bias_init=self.bias_init,
                name=f"fc{i}",
            )(x)
            x = nn.relu(x) if self.activation is None else self.activation(name=f"act{i}")(x)
            x = drop(x) if self.dropout_on == "outputs" else x
        return x


def local_response_norm(x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    """Returns `x / (2 + 1e-4 * sum(x^2))^0.75`, the sum over the 5 channels around each.

    There are fewer at the first and last channels. Formula and constants are those of Krizhevsky et
    al. (NIPS 2012, section 3.3); Caffe and PyTorch divide the factor by 5 and add the sum to 1 by
    default. Groups of a convolution do not separate channels.
    """
    channels = x.shape[-1]
    squares = lax.square(x.astype(jnp.float32))  # bfloat16 would round all but the 2 away
    padded = jnp.pad(squares, ((0, 0), (0, 0), (0, 0), (2, 2)))
    total = sum(padded[..., i : i + channels] for i in range(5))
    return x * jnp.power(2 + 1e-4 * total, -0.75).astype(x.dtype)


def average_pool(
    x: Float[Array, "n h w c"], size: int, stride: int, padding: str = "VALID"
) -> Float[Array, "n h2 w2 c"]:
    """Returns the means of square windows, with the zeros of the padding counted, as in Caffe.

    (`nn.avg_pool` divides by an int of numpy's, which strict promotion of types does not allow.)
    """
    sums = nn.pooling.pool(x, 0.0, lax.add, (size, size), (stride, stride), padding)
    return sums / size**2


def adaptive_pool(
    x: Float[Array, "n h w c"], bins: int, reduce: Callable[..., Array] = jnp.mean
) -> Float[Array, "n bins bins c"]:
    """Returns maps pooled into `bins` x `bins` cells.

    Cell `i` of a side of length `s` begins at `floor(i * s / bins)` and ends before
    `ceil((i + 1) * s / bins)`, so that cells may overlap (He et al., arXiv 1406.4729, appendix A,
    and PyTorch's adaptive pooling). A side of length `bins` stays as it is.
    """
    for axis in (1, 2):
        size = x.shape[axis]
        if size != bins:  # rows, then columns: both reductions allow it, and the slices are few
            edges = [(i * size // bins, -(-(i + 1) * size // bins)) for i in range(bins)]
            cells = [
                reduce(lax.slice_in_dim(x, start, stop, axis=axis), axis=axis)
                for start, stop in edges
            ]
            x = jnp.stack(cells, axis=axis)
    return x


def cells(x: Float[Array, "n h w c"], bins: int) -> Float[Array, "n d"]:
    """Returns the means of `bins` x `bins` cells as a vector, `d = bins * bins * c`."""
    return adaptive_pool(x, bins).reshape(x.shape[0], -1)


def windows(x: Float[Array, "n h w c"], size: int) -> Float[Array, "n h2 w2 d"]:
    """Returns every window of `size` x `size` pixels as a vector, `d = size * size * c`.

    A fully connected layer on these is a convolution of that size, with the parameters that it has
    on maps of that size (Simonyan & Zisserman, arXiv 1409.1556, section 3.2).

    Raises:
      InputError: The maps are smaller than a window.
    """
    _, height, width, _ = x.shape
    if min(height, width) < size:
        raise InputError(
            f"the fully convolutional form needs images whose last maps are at least "
            f"{size}x{size}, and these are {height}x{width}; take larger images"
        )
    tall, wide = height - size + 1, width - size + 1
    shifted = [x[:, i : i + tall, j : j + wide] for i in range(size) for j in range(size)]
    return jnp.concatenate(shifted, axis=-1)


class FixedSizeTop(nn.Module):
    """A network whose fully connected layers need last maps of a fixed size.

    Its `_forward(images, vectors, train=...)` makes their inputs by `vectors(maps, size)`.
    """

    def __call__(self, images: Float[Array, "n h w c"], *, train: bool) -> Float[Array, "n logits"]:
        """Returns float32 logits; `train` needs `rngs={"dropout": key}`.

        With batch normalisation, `train` normalises by the batch and updates `batch_stats`.
        """
        return self._forward(images, cells, train=train)

    def fully_convolutional(self, images: Float[Array, "n h w c"], *, train: bool) -> Array:
        """Returns the mean of the logits over all windows of that size of the last maps."""
        return self._forward(images, windows, train=train).mean(axis=(1, 2))

    def _forward(
        self, images: Float[Array, "n h w c"], vectors: Vectors, *, train: bool
    ) -> Float[Array, "*n num_classes"]:
        raise NotImplementedError
