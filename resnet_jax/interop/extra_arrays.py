"""Arrays that libraries store beside those of a network here, so that no conversion loses them.

Three collections, by the name of the module that an array belongs to:
  `batches_tracked/.../count`: PyTorch's `num_batches_tracked`, of a normalisation.
  `conv_biases/.../bias`: of a convolution that a normalisation follows (Keras, and conv1 of He's
    ResNet-50). The normalisation subtracts it again with the mean: in training it changes no output
    and no gradient but its own, which is zero; in evaluation the running mean less the bias
    replaces it.
  `moving_factors/.../factor`: the number that Caffe's running mean and variance are divided by.
"""

from collections.abc import Mapping

import numpy as np

from resnet_jax.interop.families.key_map import Shape, split

_COLLECTIONS = ("batches_tracked", "conv_biases", "moving_factors")


def extra_shapes(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Returns the shapes of all extra arrays that a network can have.

    Args:
      shapes: Those of the network's own arrays, by our name.
    """
    extra: dict[str, Shape] = {}
    for name, shape in shapes.items():
        if name.startswith("batch_stats/") and name.endswith("/mean"):
            norm = name.removeprefix("batch_stats/").removesuffix("/mean")
            extra[f"batches_tracked/{norm}/count"] = ()
            extra[f"moving_factors/{norm}/factor"] = (1,)
            conv = _conv_of(norm)
            if f"params/{conv}/kernel" in shapes and f"params/{conv}/bias" not in shapes:
                extra[f"conv_biases/{conv}/bias"] = shape
    return extra


def is_extra(name: str) -> bool:
    """Whether an array of this name is not one of a network's own."""
    return name.split("/")[0] in _COLLECTIONS


def fold_biases(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns arrays with biases and factors folded into the running statistics.

    Of the extra arrays the counts of batches stay. A running mean is rounded once more, by half of
    its last digit, where a factor is not 1 or a bias not 0; all other arrays are unchanged.

    Args:
      arrays: Arrays by our name.
    """
    result = {name: array for name, array in arrays.items() if not is_extra(name)}
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


def filled(arrays: Mapping[str, np.ndarray], name: str, fill: float) -> np.ndarray:
    """Returns an extra array that is full of one number.

    Args:
      arrays: The network's own, which give its type.
      name: Name of the extra array.
      fill: The number.
    """
    collection, module, _ = split(name)
    path = "/".join(module)
    if collection == "conv_biases":
        kernel = arrays[f"params/{path}/kernel"]
        return np.full(kernel.shape[-1:], fill, kernel.dtype)
    return np.full((1,), fill, arrays[f"batch_stats/{path}/mean"].dtype)


def _conv_of(norm: str) -> str:
    *path, layer = norm.split("/")
    return "/".join([*path, layer.replace("bn", "conv", 1)])
