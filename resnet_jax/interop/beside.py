"""What libraries keep beside the arrays that a network here has, so that nothing is lost.

Three collections, by the name of the module that an array belongs to:
  `batches_tracked/.../count`: PyTorch's `num_batches_tracked`, of a normalisation.
  `conv_biases/.../bias`: of a convolution that a normalisation follows (Keras, and conv1 of He's
    ResNet-50). Whatever is added there, the normalisation takes away again with the mean: in
    training it changes no output, and no gradient but its own, which is zero; in evaluation the
    running mean less the bias does the same without it.
  `moving_factors/.../factor`: what Caffe's running mean and variance are to be divided by.
"""

from collections.abc import Mapping

import numpy as np

from resnet_jax.interop.naming import split

COLLECTIONS = ("batches_tracked", "conv_biases", "moving_factors")

Shape = tuple[int, ...]


def beside_shapes(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Returns the shapes of all that there may be beside a network.

    Args:
      shapes: Those of the network's own arrays, by our name.
    """
    found: dict[str, Shape] = {}
    for name, shape in shapes.items():
        if name.startswith("batch_stats/") and name.endswith("/mean"):
            norm = name.removeprefix("batch_stats/").removesuffix("/mean")
            found[f"batches_tracked/{norm}/count"] = ()
            found[f"moving_factors/{norm}/factor"] = (1,)
            conv = _conv_of(norm)
            if f"params/{conv}/kernel" in shapes and f"params/{conv}/bias" not in shapes:
                found[f"conv_biases/{conv}/bias"] = shape
    return found


def is_beside(name: str) -> bool:
    """Whether an array of this name is none of a network's own."""
    return name.split("/")[0] in COLLECTIONS


def settled(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the arrays of a network that needs nothing beside them, and the counts of batches.

    A running mean is rounded once more, by half of its last digit, where there is a factor other
    than 1 or a bias other than 0; all else is as it was.

    Args:
      arrays: Arrays by our name.
    """
    result = {name: array for name, array in arrays.items() if not is_beside(name)}
    for name, array in result.items():
        collection, module, leaf = split(name)
        if collection != "batch_stats":
            continue
        norm = "/".join(module)
        factor = arrays.get(f"moving_factors/{norm}/factor")
        bias = arrays.get(f"conv_biases/{_conv_of(norm)}/bias") if leaf == "mean" else None
        exact = array.astype(np.float64)
        if factor is not None:
            exact = exact / factor.item() if factor.item() else np.zeros_like(exact)  # as Caffe
        if bias is not None:
            exact = exact - bias.astype(np.float64)
        if factor is not None or bias is not None:
            result[name] = exact.astype(array.dtype)
    return result | {n: a for n, a in arrays.items() if n.startswith("batches_tracked/")}


def _conv_of(norm: str) -> str:
    *path, layer = norm.split("/")
    return "/".join([*path, layer.replace("bn", "conv", 1)])


def filled(arrays: Mapping[str, np.ndarray], name: str, fill: float) -> np.ndarray:
    """Returns what stands beside a network where nothing is known of it.

    Args:
      arrays: The network's, one of which has the type that it gets.
      name: Name of the array.
      fill: The number that it is full of.
    """
    collection, module, _ = split(name)
    path = "/".join(module)
    if collection == "conv_biases":
        kernel = arrays[f"params/{path}/kernel"]
        return np.full(kernel.shape[-1:], fill, kernel.dtype)
    return np.full((1,), fill, arrays[f"batch_stats/{path}/mean"].dtype)
