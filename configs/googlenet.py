"""GoogLeNet (2014) and BN-Inception (2015) on ImageNet.

    python train.py --workdir W --config configs/googlenet.py:googlenet

Names: googlenet; bn_inception; googlenet_bn, torchvision's form of GoogLeNet.

Data: ImageNet 2012 as tfds has it. Prepare it once with
`tfds build imagenet2012 --file_format=array_record`; or take a folder
`root/{train,validation}/<class>/*` with `--config.data.source=folder --config.data.path=root`.

The recipes: Szegedy et al. (arXiv 1409.4842), section 6: momentum 0.9, a rate that is reduced by 4%
every 8 epochs, crops of 8% to 100% of the area, auxiliary losses weighted 0.3. The rest
is that of Caffe's replication (`bvlc_googlenet`): batches of 32, a first rate of 0.01, weight decay
0.0002, 250 epochs, images of 0 to 255 whose mean colour is subtracted. Ioffe, Szegedy (arXiv
1502.03167), section 4.2, the network BN-x30: a first rate of 0.045 that is reduced six times as
often, a fifth of the weight decay, no dropout, 6 million steps of 32 images, the statistics of
normalisation from each 32. googlenet_bn has that too, since torchvision's weights were converted,
and its recipe is not known.

Differences: batches are synchronous, where the papers' replicas were not; there is no random
colour, and no average of the parameters over time. `--config.schedule.name=cosine` with
`--config.total_steps=2400000` is near Caffe's faster schedule for googlenet (its rate falls with
the square root of the steps that are left).

Expected (validation error in percent, top-1 and top-5): googlenet with a single crop 31.3 and 11.1
(Caffe, 60 epochs by its faster schedule), 10.07 top-5 in the paper's table 3; bn_inception with a
single crop 25.2 (the paper's figure 3); googlenet_bn 30.2 and 10.5 (torchvision). None of it was
trained here yet.

Cost: googlenet 10 million steps, 320 million images of 1.5 billion multiplications each, forwards;
bn_inception 6 million steps, 192 million images of 2.0 billion.
"""

from ml_collections import ConfigDict

from resnet_jax.config import IMAGENET_TRAIN_IMAGES, imagenet_config
from resnet_jax.errors import unknown

NAMES = ("googlenet", "googlenet_bn", "bn_inception")


def get_config(name: str = "googlenet") -> ConfigDict:
    """Returns the config of a network."""
    if name not in NAMES:
        raise unknown("network of configs/googlenet.py", name, NAMES)
    config = imagenet_config(name)

    config.data.augment = "inception_crop"
    config.data.mean = "channel"
    config.data.std = "none"  # kernels and biases start for images of 0 to 255

    config.batch_size = 32
    config.eval_batch_size = 256
    epoch = IMAGENET_TRAIN_IMAGES // config.batch_size
    config.total_steps = 10_000_000
    every = 8 * epoch
    config.optimizer.weight_decay = 2e-4
    config.schedule.learning_rate = 0.01

    if name in ("bn_inception", "googlenet_bn"):
        config.model.bn_group_size = 32
        config.data.std = "channel"
        config.total_steps = 6_000_000
        every //= 6
        config.optimizer.weight_decay /= 5
        config.schedule.learning_rate = 0.045

    config.schedule.boundaries = tuple(range(every, config.total_steps, every))
    config.schedule.factor = 0.96
    config.log_every = 1000
    config.eval_every = epoch
    config.checkpoint_every = epoch
    return config
