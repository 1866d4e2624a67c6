"""Networks with the weights that someone has trained."""

from typing import Any, NamedTuple, cast

import numpy as np
from etils import epath
from flax import linen as nn
from flax import traverse_util
from jaxtyping import Float32, PyTree

from resnet_jax.data import Statistics
from resnet_jax.errors import InputError
from resnet_jax.interop.extra_arrays import fold_biases, is_extra
from resnet_jax.interop.families.key_map import DialectName
from resnet_jax.interop.preprocessing import Preprocessing
from resnet_jax.interop.read import read_weights
from resnet_jax.interop.weights import (
    Variables,
    image_channels,
    network_shapes,
    of_variables,
    shapes_of,
)
from resnet_jax.interop.write import write_weights


class Pretrained(NamedTuple):
    """A network, ready to use: `network.apply(variables, images, train=False)`.

    Attributes:
      network: The network.
      variables: Its `params` and `batch_stats`, which may be empty; float32, on the host.
      preprocessing: How images become its input.
      source: Where it comes from.
    """

    network: nn.Module
    variables: dict[str, PyTree[Float32[np.ndarray, "..."]]]
    preprocessing: Preprocessing
    source: str

    @property
    def in_channels(self) -> int:
        """Channels of the images."""
        flat = cast(dict[str, np.ndarray], traverse_util.flatten_dict(self.variables, sep="/"))
        return image_channels(self.network, shapes_of(flat))

    def statistics(self) -> Statistics:
        """Returns the statistics that images are normalised with.

        Raises:
          InputError: They are for images of other channels.
        """
        there, here = len(self.preprocessing.mean), self.in_channels
        if there != here:
            raise InputError(
                f"{self.source} takes images of {here} channels, and what is subtracted has {there}"
            )
        return self.preprocessing.statistics()


def load_pretrained(
    source: epath.PathLike,
    *,
    num_classes: int | None = None,
    dialect: DialectName | None = None,
    preprocessing: Preprocessing | None = None,
    **options: Any,
) -> Pretrained:
    """Returns a network with weights of torchvision, timm, Hugging Face, Keras, Caffe or our own.

    Depth, block, width and number of classes are recognised by the arrays. Which convolution has
    the stride, and how the max-pool is padded, comes from the metadata of files that were written
    here and from the configs of Hugging Face and Keras; else it is the library's usual form: v1.5
    in torchvision and timm, v1 in Keras and Caffe.

    Images are RGB for all: where the source has BGR (Keras, Caffe), the inputs of the first kernel
    are reversed. Biases of convolutions before a normalisation (Keras; conv1 of He's ResNet-50) are
    folded into its running mean, with which the network computes the same, in training too;
    `read_weights` keeps them beside.

    Args:
      source: A file of safetensors; a file of PyTorch (`.pth`), which is read without running
        anything in it; a file of Keras (`.h5`, `.weights.h5` or `.keras`, which need the package
        `h5py`), or Caffe (`.caffemodel`, which needs `protobuf`); a folder with
        `model.safetensors` and perhaps `config.json` and `preprocessor_config.json`, or with a
        `.caffemodel` and perhaps a `mean.binaryproto`; or an id of the Hugging Face hub,
        `owner/name` or `owner/name@revision`, which needs the package `huggingface_hub`.
      num_classes: Classes of a new head, which starts at zero; by default the head is the
        source's.
      dialect: The library that named the arrays; by default it is recognised.
      preprocessing: How images are prepared; by default as the source says, or as is usual with
        its dialect.
      **options: Fields of the network, such as `stride_on`, `dtype` or `bn_group_size`, which
        override the recognised ones.

    Raises:
      InputError: There is no such source, it cannot be read, or its arrays belong to no network
        here; the message has the first names and shapes that differ.
    """
    weights = read_weights(source, dialect=dialect, preprocessing=preprocessing, **options)
    network = weights.network
    arrays = {
        name: np.asarray(array, np.float32, order="C")
        for name, array in fold_biases(weights.arrays).items()
        if not is_extra(name)
    }
    if num_classes is not None:
        network = network.clone(num_classes=num_classes)
        shapes = network_shapes(network, weights.channels)
        arrays |= {
            name: np.zeros(shapes[name], np.float32)
            for name, array in arrays.items()
            if array.shape != shapes[name]
        }
    variables = {"batch_stats": {}, **traverse_util.unflatten_dict(arrays, sep="/")}
    return Pretrained(network, variables, weights.preprocessing, weights.source)


def save_pretrained(
    network: nn.Module,
    variables: Variables,
    destination: epath.PathLike,
    *,
    to: DialectName,
    preprocessing: Preprocessing | None = None,
    force: bool = False,
) -> None:
    """Writes a network as a library has it.

    Args:
      network: The network, of a class of this package; each library has only some of them.
      variables: Its `params` and, if it has any, `batch_stats`.
      destination: A file `NAME.safetensors`, which torch's `load_state_dict` takes once
        `safetensors.torch.load_file` has read it; or a folder to be made, with the configs from
        which timm and transformers make the network; `NAME.h5` for Keras, whose `load_weights`
        takes it; `NAME.caffemodel` for Caffe, or a folder with one and the mean image.
      to: The library, or "resnet_jax" for our own names.
      preprocessing: How images are prepared; by default as is usual for ImageNet, or, for images of
        other than 3 channels, resized and cropped only.
      force: Write it although the library's network would compute something else, because it pads
        the max-pool or places the stride in another way.

    Raises:
      InputError: The network is of another class, the variables are not its own, the library has no
        such network, or there is something at the destination.
    """
    weights = of_variables(network, variables, preprocessing, "the network")
    write_weights(weights, destination, to, force=force)
