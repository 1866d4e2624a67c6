"""Networks as StableHLO programs, which run without this package.

`export_stablehlo` returns one, with the weights in it, and `python -m resnet_jax export SOURCE
DESTINATION` writes it to a file. `jax.export.deserialize(bytearray(content)).call(images)` runs it,
with nothing but jax and flatbuffers.
"""

import importlib.util
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import export
from jaxtyping import Array, Float, PyTree, Shaped

from resnet_jax.data import Statistics, preprocess
from resnet_jax.errors import InputError, exit_moved, unknown
from resnet_jax.interop.formats import refusing
from resnet_jax.models import plain_form

PLATFORMS = ("cpu", "cuda", "tpu")


def export_stablehlo(
    model: nn.Module,
    variables: Mapping[str, PyTree[Float[Array, "..."]]],
    image_shape: tuple[int, int, int],
    *,
    statistics: Statistics | None = None,
    platforms: Sequence[str] = PLATFORMS,
) -> bytes:
    """Returns a network as a program for batches of any size and for several platforms at once.

    jax promises to read it for six months, on the platforms that it was made for. The file is as
    large as the weights.

    Args:
      model: The network.
      variables: Its `params` and `batch_stats`.
      image_shape: Height, width and channels of its images.
      statistics: With them the program takes pixels, uint8 [n, h, w, c], and normalises them;
        without, float32 images that are normalised. It returns float32 logits [n, num_classes].
      platforms: Of "cpu", "cuda" and "tpu".

    Raises:
      InputError: There is no such platform or one is named twice, the variables or the images are
        not the network's, or the package `flatbuffers` is missing.
    """
    if importlib.util.find_spec("flatbuffers") is None:
        raise InputError(
            "to write programs flatbuffers has to be installed: pip install 'resnet_jax[export]'"
        )
    platforms = tuple(platforms)
    for platform in platforms:
        if platform not in PLATFORMS:
            raise unknown("platform", platform, PLATFORMS)
    if not platforms or len(set(platforms)) < len(platforms):
        raise InputError(f"the platforms are {platforms}; name one or more, each of them once")

    def logits_of(images: Shaped[Array, "n h w c"]) -> Float[Array, "n classes"]:
        if statistics is not None:
            images = preprocess({"image": images}, statistics, padding=0)
        logits = plain_form(model).apply(variables, images, train=False)
        assert isinstance(logits, jax.Array)
        return logits

    (batch,) = export.symbolic_shape("batch")
    dtype = jnp.float32 if statistics is None else jnp.uint8
    images = jax.ShapeDtypeStruct((batch, *image_shape), dtype)
    with refusing(
        "the network cannot be exported with these variables for images of shape "
        f"{tuple(image_shape)}"
    ):
        exported = export.export(jax.jit(logits_of), platforms=platforms)(images)
    return bytes(exported.serialize())


if __name__ == "__main__":
    exit_moved("export")
