"""Weights of torchvision, timm, Hugging Face, Keras and Caffe, in and out.

`load_pretrained` returns a network and its variables, `save_pretrained` writes them as a library
has them, and `python -m resnet_jax convert SOURCE DESTINATION --to DIALECT` converts between any
two. In between are `Weights`: the arrays under our names, in the types they were stored in.
"""

from resnet_jax.interop.naming import DialectName
from resnet_jax.interop.preprocessing import Preprocessing, of_statistics
from resnet_jax.interop.pretrained import Pretrained, load_pretrained, save_pretrained
from resnet_jax.interop.read import read_weights
from resnet_jax.interop.weights import Weights, of_variables
from resnet_jax.interop.write import write_weights

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
