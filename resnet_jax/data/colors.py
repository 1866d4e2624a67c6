"""The principal components of colour, along which the colours of training images are varied.

Krizhevsky et al. (NIPS 2012, section 4.1) add to all pixels of an image the eigenvectors of the
covariance of red, green and blue over the training set, each times its eigenvalue times a random
coefficient. They do not say in which unit; of pixels from 0 to 255 the eigenvalues are thousands,
and so it is taken of pixels from 0 to 1, as fb.resnet.torch does.
"""

from typing import Literal

import numpy as np
from jaxtyping import Float

ColorOf = Literal["none", "pca", "pca_imagenet"]

_WHITE = 255.0

# As fb.resnet.torch has them, measured on some of ImageNet's training images: the eigenvalues of
# pixels from 0 to 1, and an eigenvector in each column.
_IMAGENET_EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])
_IMAGENET_EIGENVECTORS = np.array(
    [
        [-0.5675, 0.7192, 0.4009],
        [-0.5808, -0.0045, -0.8140],
        [-0.5836, -0.6948, 0.4203],
    ]
)


def imagenet_components() -> Float[np.ndarray, "3 3"]:
    """Returns the components of ImageNet, as `components` returns them."""
    return _WHITE * _IMAGENET_EIGENVALUES * _IMAGENET_EIGENVECTORS


def components(covariance: Float[np.ndarray, "c c"]) -> Float[np.ndarray, "c c"]:
    """Returns the principal components of colours, in units of 0 to 255.

    Args:
      covariance: Of the channels of all pixels, in units of 0 to 255, squared.

    Returns:
      A component in each column, the one with the most variance first: the eigenvector, whose
      largest entry is positive, times the eigenvalue of pixels from 0 to 1.
    """
    eigenvalues, eigenvectors = np.linalg.eigh(covariance / _WHITE**2)
    # Of colours that vary in fewer directions some are zero, and rounding makes them negative.
    eigenvalues = np.maximum(eigenvalues[::-1], 0)
    eigenvectors = eigenvectors[:, ::-1]
    largest = np.abs(eigenvectors).argmax(axis=0)
    signs = np.sign(eigenvectors[largest, np.arange(len(eigenvectors))])
    return _WHITE * eigenvalues * signs * eigenvectors
