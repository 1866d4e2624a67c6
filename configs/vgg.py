"""VGG (2014) on ImageNet, by the paper's recipe, and with batch normalisation.

    python train.py --workdir W --config configs/vgg.py:vgg16

Names: vgg11, 13, 16, 19 (configurations A, B, D, E), and vgg11_bn, 13_bn, 16_bn, 19_bn.

Data: ImageNet 2012 as tfds has it. Prepare it once with
`tfds build imagenet2012 --file_format=array_record`; or take a folder
`root/{train,validation}/<class>/*` with `--config.data.source=folder --config.data.path=root`.

The recipe: Simonyan, Zisserman (arXiv 1409.1556), section 3.1: batches of 256, momentum 0.9, weight
decay 0.0005, a rate of 0.01 that is divided by 10 three times when the validation error stops
improving, 370k iterations (74 epochs); crops of 224 pixels of images of random size, mirrored, in
random colours; the mean colour is subtracted. With batch normalisation torchvision's: weight decay
0.0001, random areas and proportions, divided by 10 after 30 and 60 of 90 epochs.

Differences: the shorter side is drawn from 256 to 480, not to 512, and from the start, where the
paper begins with networks trained at 384; all depths start at random, as in He et al. 2015, and so
images are divided by their standard deviation; the paper starts from the layers of vgg11.

Expected (validation error in percent, top-1 and top-5): by the paper's table 3, evaluated densely
at a side of 384, vgg16 25.6 and 8.1, vgg19 25.5 and 8.0; vgg11 29.6 and 10.4, vgg13 28.7 and 9.9
for sides of 256. With a single crop, as in the evaluations during training,
torchvision's weights have top-1 31.0, 30.1, 28.4, 27.6, and with batch normalisation 29.6, 28.4,
26.6, 25.8. None of it was trained here yet.

Cost: 370k steps are 95 million images of 7.6 (vgg11), 11.3, 15.5 or 19.6 (vgg19) billion
multiplications each, forwards; the paper took two to three weeks on four GPUs.
"""

from ml_collections import ConfigDict

from resnet_jax.config import IMAGENET_TRAIN_IMAGES, imagenet_config
from resnet_jax.errors import unknown

NAMES = tuple(f"vgg{depth}{form}" for depth in (11, 13, 16, 19) for form in ("", "_bn"))


def get_config(name: str = "vgg16") -> ConfigDict:
    """Returns the config of a network."""
    if name not in NAMES:
        raise unknown("network of configs/vgg.py", name, NAMES)
    config = imagenet_config(name)

    config.data.augment = "scale_jitter"
    config.data.color = "pca_imagenet"
    config.data.mean = "channel"

    config.batch_size = 256
    epoch = IMAGENET_TRAIN_IMAGES // config.batch_size
    config.total_steps = 370_000
    config.optimizer.weight_decay = 5e-4
    config.schedule.name = "plateau"
    config.schedule.learning_rate = 0.01
    config.schedule.patience = 5
    config.eval_every = epoch
    config.checkpoint_every = epoch

    if name.endswith("_bn"):
        config.model.bn_group_size = 32  # 256 images on 8 GPUs
        config.data.augment = "inception_crop"
        config.data.color = "none"
        config.optimizer.weight_decay = 1e-4
        config.schedule.name = "step"
        config.schedule.boundaries = (30 * epoch, 60 * epoch)
        config.total_steps = 90 * epoch
    return config
