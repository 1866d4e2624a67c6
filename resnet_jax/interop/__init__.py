"""Weights of torchvision, timm, Hugging Face, Keras and Caffe, in and out.

`load_pretrained` returns a network and its variables, `save_pretrained` writes them as a library
has them, and `python -m resnet_jax convert SOURCE DESTINATION --to DIALECT` converts between any
two. In between are `Weights`: the arrays by our names, in the types that they were stored in.

A network that is in the registry of `models` can be saved and loaded in our own names without a
line here. To read another library's names of it, add a `KeyMap` to its family; to read another file
format, a module to `formats` and its first bytes to `source`.
"""

from resnet_jax.interop.families.key_map import DialectName
from resnet_jax.interop.preprocessing import Preprocessing, of_statistics
from resnet_jax.interop.read import Pretrained, load_pretrained, read_weights
from resnet_jax.interop.weights import Weights, of_variables
from resnet_jax.interop.write import save_pretrained, write_weights

__all__ = [
    "DialectName",
    "Preprocessing",
    "Pretrained",
    "Weights",
    "load_pretrained",
    "of_statistics",
    "of_variables",
    "read_weights",
    "save_pretrained",
    "write_weights",
]
