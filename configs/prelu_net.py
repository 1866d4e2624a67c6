"""PReLU-nets (2015) on ImageNet, by the paper's recipe.

    python train.py --workdir W --config configs/prelu_net.py:prelu_net_a

Names: prelu_net_a, prelu_net_b, prelu_net_c.

Data: ImageNet 2012 as tfds has it. Prepare it once with
`tfds build imagenet2012 --file_format=array_record`; or take a folder
`root/{train,validation}/<class>/*` with `--config.data.source=folder --config.data.path=root`.

The recipe: He, Zhang, Ren, Sun (arXiv 1502.01852), section 3: batches of 128, momentum 0.9, weight
decay 0.0005 on all but the slopes, rates of 0.01, 0.001 and 0.0001, switched when the error
plateaus, about 80 epochs; crops of 224 pixels of images of random size, mirrored, in random
colours; the mean image is subtracted, and nothing is divided by.

Differences: the shorter side is drawn from 256 to 480, not to 512; biases are not decayed either.

Expected (10-crop validation error in percent, top-1 and top-5): prelu_net_c 24.27 and 7.38 (table 3
of the residual networks' paper). None of it was trained here yet.

Cost: 800k steps of 128 images are 80 epochs, 102 million images of 19 (A), 23 (B) or 53 (C) billion
multiplications each, forwards; the paper took three to four weeks on 4 (A) or 8 (C) GPUs.
"""

from ml_collections import ConfigDict

from resnet_jax.config import IMAGENET_TRAIN_IMAGES, imagenet_config
from resnet_jax.errors import unknown

NAMES = ("prelu_net_a", "prelu_net_b", "prelu_net_c")


def get_config(name: str = "prelu_net_a") -> ConfigDict:
    """Returns the config of a network."""
    if name not in NAMES:
        raise unknown("network of configs/prelu_net.py", name, NAMES)
    config = imagenet_config(name)

    config.data.augment = "scale_jitter"
    config.data.color = "pca_imagenet"
    config.data.std = "none"

    config.batch_size = 128
    epoch = IMAGENET_TRAIN_IMAGES // config.batch_size
    config.total_steps = 80 * epoch
    config.optimizer.weight_decay = 5e-4
    config.optimizer.weight_decay_on = "kernels"
    config.schedule.name = "plateau"
    config.schedule.learning_rate = 0.01
    config.schedule.patience = 5
    config.schedule.min_scale = 1e-2
    config.eval_every = epoch
    config.checkpoint_every = epoch
    return config
