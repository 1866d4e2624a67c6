"""AlexNet (2012) and ZFNet (2013) on ImageNet, by their papers' recipes, and a modern AlexNet.

    python train.py --workdir W --config configs/alexnet.py:alexnet

Names: alexnet; zfnet, and zfnet_wide with 512, 1024 and 512 filters in the last three convolutions;
alexnet_torchvision, the form and the recipe of torchvision.

Data: ImageNet 2012 as tfds has it. Prepare it once with
`tfds build imagenet2012 --file_format=array_record`; or take a folder
`root/{train,validation}/<class>/*` with `--config.data.source=folder --config.data.path=root`.

The recipes: Krizhevsky, Sutskever, Hinton (NIPS 2012), section 5: batches of 128, momentum 0.9,
weight decay 0.0005, a rate of 0.01 that is divided by 10 three times when the validation error
stops improving, about 90 epochs; crops of images whose shorter side is 256, mirrored, in random
colours; the mean image is subtracted, and nothing is divided by. Zeiler, Fergus (arXiv 1311.2901),
section 3: the same, 70 epochs, with five fixed crops and without the colours. torchvision: batches
of 256, weight decay 0.0001, random areas and proportions, divided by 10 after 30 and 60 of 90
epochs.

Differences: sides of images are in proportion where the network takes 227 pixels for 224.
AlexNet's crops are of the whole image, not of its central square; the components of its colours are
those that fb.resnet.torch measured on ImageNet. ZFNet's crops come from anywhere; the norms of its
filters are not limited, and its weight decay is AlexNet's, since its paper does not say. Caffe's
replication of AlexNet found that biases that start at 1 gave a flat loss, and started them at 0.1.

Expected (validation error in percent, top-1 and top-5): with 10 crops alexnet 40.7 and 18.2, zfnet
38.4 and 16.5, zfnet_wide 37.5 and 16.0 (the papers' tables 2); with a single crop, as in
the evaluations during training, alexnet 42.9 and 19.8 (Caffe's replication), and
alexnet_torchvision 43.5 and 20.9 (torchvision). None of it was trained here yet.

Cost: 900k steps of 128 images are 90 epochs, 115 million images of 0.7 (alexnet) or 1.2 (zfnet)
billion multiplications each, forwards.
"""

from ml_collections import ConfigDict

from resnet_jax.config import IMAGENET_TRAIN_IMAGES, imagenet_config
from resnet_jax.errors import unknown

NAMES = ("alexnet", "alexnet_torchvision", "zfnet", "zfnet_wide")


def get_config(name: str = "alexnet") -> ConfigDict:
    """Returns the config of a network, by its paper's recipe unless its name says otherwise."""
    if name not in NAMES:
        raise unknown("network of configs/alexnet.py", name, NAMES)
    config = imagenet_config(name)

    config.data.augment = "random_crop"
    config.data.color = "pca_imagenet" if name == "alexnet" else "none"
    config.data.std = "none"  # kernels start for images of 0 to 255

    config.batch_size = 128
    epoch = IMAGENET_TRAIN_IMAGES // config.batch_size
    config.total_steps = (70 if name.startswith("zfnet") else 90) * epoch
    config.optimizer.weight_decay = 5e-4
    config.schedule.name = "plateau"
    config.schedule.learning_rate = 0.01
    config.schedule.patience = 5
    config.eval_every = epoch
    config.checkpoint_every = epoch

    if name == "alexnet_torchvision":
        _torchvision(config)
    return config


def _torchvision(config: ConfigDict) -> None:
    """The reference scripts of torchvision: 8 GPUs with 32 images each."""
    config.batch_size = 256
    epoch = IMAGENET_TRAIN_IMAGES // config.batch_size
    config.data.augment = "inception_crop"
    config.data.mean = "channel"
    config.data.std = "channel"
    config.optimizer.weight_decay = 1e-4
    config.schedule.name = "step"
    config.schedule.boundaries = (30 * epoch, 60 * epoch)
    config.total_steps = 90 * epoch
    config.eval_every = epoch
    config.checkpoint_every = epoch
