"""An 8-layer residual network on handwritten digits that come with the package.

    python train.py --workdir /tmp/digits
    python evaluate.py --workdir /tmp/digits

Data: 1,437 images of 8x8 pixels to train on and 360, by other writers, to test on, enlarged to 16.
"""

from ml_collections import ConfigDict

from resnet_jax.config import base_config


def get_config() -> ConfigDict:
    """Returns the config."""
    config = base_config()
    config.model.name = "cifar_resnet8"
    config.data.source = "digits"
    config.data.image_size = 16
    config.data.augment = "pad_crop"
    config.batch_size = 128
    config.total_steps = 400
    config.schedule.boundaries = (200, 300)
    config.log_every = 20
    config.eval_every = 100
    config.checkpoint_every = 100
    return config
