"""Batch normalisation whose statistics belong to groups of a chosen number of images."""

import contextvars
import functools
from collections.abc import Callable, Mapping
from typing import Literal, cast

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util
from flax.typing import Dtype, Initializer
from jax import lax
from jaxtyping import Array, Float, PyTree

from resnet_jax.errors import InputError
from resnet_jax.models.lowering import normalize

GroupSize = int | Literal["global"] | None

_Leaves = dict[tuple[str, ...], Array]
_is_folded = contextvars.ContextVar("is_folded", default=False)


class BatchNorm(nn.Module):
    """Batch normalisation (Ioffe & Szegedy, arXiv 1502.03167) over the last axis.

    The images that share statistics are a *group*. With a fixed size of groups a network trained on
    one device is the same as one trained on many: He et al. trained ImageNet with groups of 32 (256
    images on 8 GPUs).

    The running statistics move by `1 - momentum` towards the mean over the groups of their means
    and (biased) variances. Under a mapped axis each replica moves its own; averaging them over the
    replicas, as the training step does together with the gradients, gives the same numbers on any
    number of replicas.

    Attributes:
      momentum: Share of the running statistics that a step keeps. PyTorch's `momentum` is one
        minus this.
      epsilon: Added to the variance.
      group_size: `None`: all images of this call (under a mapped axis, of a replica) are a group.
        An int: consecutive images form groups of this size, inside a call by a reshape, or across
        neighbouring replicas of `axis_name` where it is a multiple of the images of one.
        `"global"`: all images of all replicas of `axis_name`, or of this call if there is none.
      axis_name: Mapped axis over which groups may span replicas. Under a mapped axis that is not
        named here, each replica has its own statistics, and `group_size` counts inside it.
      dtype: Type of the output; statistics and parameters are always float32.
      scale_init: Initialiser of the scale.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    group_size: GroupSize = None
    axis_name: str | None = None
    dtype: Dtype = jnp.float32
    scale_init: Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], *, train: bool) -> Float[Array, "n h w c"]:
        """Normalises `x` by its groups' statistics when `train`, else by the running ones.

        Raises:
          InputError: `group_size` fits neither the number of images nor that of the replicas.
        """
        shape, channels = x.shape, x.shape[-1]
        scale = self.param("scale", self.scale_init, (channels,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,), jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, (channels,), jnp.float32)

        if not train and _is_folded.get():  # the rest is part of the convolution before
            return (x.astype(jnp.float32) + bias[None, None, None]).astype(self.dtype)
        if not train:
            return self._normalize(
                x[None], running_mean.value[None], running_var.value[None], scale, bias
            ).reshape(shape)
        # Variables do not depend on the number of images.
        x, span = (x[None], None) if self.is_initializing() else self._groups(x)
        # Both moments in one reading of x: memory bandwidth limits a training step, and two passes
        # would read the activations twice.
        y = x.astype(jnp.float32)
        moments = jnp.stack([y.mean(axis=(1, 2, 3)), lax.square(y).mean(axis=(1, 2, 3))])
        if span is not None:
            moments = lax.pmean(
                moments, self.axis_name, axis_index_groups=None if span == "all" else span
            )
        mean, mean_of_squares = moments
        var = jnp.maximum(mean_of_squares - lax.square(mean), 0.0)
        if not self.is_initializing():
            keep = self.momentum
            running_mean.value = keep * running_mean.value + (1 - keep) * mean.mean(axis=0)
            running_var.value = keep * running_var.value + (1 - keep) * var.mean(axis=0)
        return self._normalize(x, mean, var, scale, bias).reshape(shape)

    def _groups(
        self, x: Float[Array, "n h w c"]
    ) -> tuple[Float[Array, "groups m h w c"], list[list[int]] | Literal["all"] | None]:
        """Returns the images by group, and which replicas have to share their moments."""
        images = x.shape[0]
        if self.group_size is None:
            return x[None], None
        if self.group_size == "global":
            return x[None], "all" if self.axis_name is not None else None
        if images % self.group_size == 0:
            return x.reshape(-1, self.group_size, *x.shape[1:]), None
        if self.axis_name is None:
            raise InputError(
                f"bn_group_size {self.group_size} does not divide the batch of {images} images; "
                "groups span replicas only over a mapped axis that bn_axis_name names"
            )
        replicas = lax.axis_size(self.axis_name)
        span, rest = divmod(self.group_size, images)
        if rest or replicas % span:
            raise InputError(
                f"bn_group_size {self.group_size} fits no whole number of times into a batch of "
                f"{replicas * images} images on {replicas} replicas of {images}: it must divide "
                f"{images}, or be a multiple of it that divides {replicas * images}"
            )
        return x[None], [list(range(i, i + span)) for i in range(0, replicas, span)]

    def _normalize(
        self,
        x: Float[Array, "groups m h w c"],
        mean: Float[Array, "groups c"],
        var: Float[Array, "groups c"],
        scale: Float[Array, " c"],
        bias: Float[Array, " c"],
    ) -> Float[Array, "groups m h w c"]:
        def spread(a: Float[Array, "groups c"]) -> Float[Array, "groups 1 1 1 c"]:
            return a[:, None, None, None, :]

        factor = lax.rsqrt(var + self.epsilon) * scale[None]
        return normalize(x, spread(mean), spread(factor), spread(bias[None])).astype(self.dtype)


def batch_norm_of(network: nn.Module) -> Callable[..., BatchNorm]:
    """Returns the maker of the normalisations of a network with the fields `bn_...` and `dtype`.

    It is called as `norm(name=..., scale_init=...)`.
    """
    fields = ("bn_momentum", "bn_epsilon", "bn_group_size", "bn_axis_name", "dtype")
    options = {field.removeprefix("bn_"): getattr(network, field) for field in fields}
    return functools.partial(BatchNorm, **options)


def apply_folded(
    model: nn.Module,
    variables: Mapping[str, PyTree],
    images: Float[Array, "n h w c"],
    *,
    method: Callable[..., Array] | str | None = None,
) -> Array:
    """Returns `model.apply(variables, images, train=False)`, up to rounding, faster.

    Each batch normalisation is folded into the convolution before it: the kernel is scaled, and
    only a bias is left to add, which takes no pass over memory of its own on a GPU.

    Args:
      model: A network of the registry; each of its normalisations `bn...` follows `conv...`.
      variables: Its variables.
      images: The images, normalised.
      method: Another method of the network, as of `nn.Module.apply`.
    """
    params = cast(_Leaves, traverse_util.flatten_dict(variables["params"]))
    statistics = cast(_Leaves, traverse_util.flatten_dict(variables.get("batch_stats", {})))
    for *parents, name in sorted({path[:-1] for path in statistics}):
        norm, conv = (*parents, name), (*parents, name.replace("bn", "conv", 1))
        variance = statistics[*norm, "var"] + model.bn_epsilon  # pyrefly: ignore
        factor = lax.rsqrt(variance) * params[*norm, "scale"]
        params[*norm, "bias"] -= statistics[*norm, "mean"] * factor
        params[*conv, "kernel"] *= factor[None, None, None]
        if (*conv, "bias") in params:
            params[*conv, "bias"] *= factor
    token = _is_folded.set(True)
    try:
        folded = {**variables, "params": traverse_util.unflatten_dict(params)}
        logits = model.apply(folded, images, train=False, method=method)
    finally:
        _is_folded.reset(token)
    assert isinstance(logits, jax.Array)
    return logits
