"""The paper's ImageNet networks (section 4.1), by its recipe, and a modern one.

    python train.py --workdir W --config configs/imagenet.py:resnet50

Names: resnet18, 34, 50, 101, 152 (shortcut B, as in tables 3 and 4); resnet18_A, resnet34_A, _B, _C
(tables 2 and 3); plain18, plain34; `_v1_5` after a depth for the form of torchvision and others;
resnet50_large_batch, which is v1.5 after Goyal et al. (arXiv 1706.02677).

Data: ImageNet 2012 as tfds has it, as ArrayRecord or TFRecord. Where it is not yet, prepare it with
`tfds build imagenet2012 --file_format=array_record` (its own page says which archives it wants); or
take a folder `root/{train,validation}/<class>/*` with
`--config.data.source=folder --config.data.path=root`. `python -m resnet_jax prepare` makes a
smaller copy of either (`--shorter_side 480` is the largest that the paper's crops are taken of).

Expected (10-crop validation error in percent, top-1): plain18 27.94, plain34 28.54, resnet18_A
27.88, resnet34_A 25.03, _B 24.52, _C 24.19, resnet50 22.85, 101 21.75, 152 21.43. With a single
crop, as in the evaluations during training, He's released models have 24.7 (50), 23.6
(101) and 23.0 (152), and Goyal et al. 23.7 with large batches. None of it was trained here yet.

Cost: 600k steps of 256 images are 120 epochs, 154 million images; 90 epochs are 115 million.
It was not timed here; use `--config.dtype=bfloat16` on accelerators. With another
`--config.batch_size` the learning rate changes in proportion, unless it is given.
"""

from ml_collections import ConfigDict

from resnet_jax.config import IMAGENET_TRAIN_IMAGES, imagenet_config
from resnet_jax.errors import unknown

NAMES = (
    *(f"resnet{d}{form}" for d in (18, 34, 50, 101, 152) for form in ("", "_v1_5")),
    *("resnet18_A", "resnet34_A", "resnet34_B", "resnet34_C", "plain18", "plain34"),
    "resnet50_large_batch",
)


def get_config(name: str = "resnet50") -> ConfigDict:
    """Returns the config of a network, by the paper's recipe unless its name says otherwise."""
    if name not in NAMES:
        raise unknown("network of configs/imagenet.py", name, NAMES)
    model = name.removesuffix("_large_batch")
    shortcut = None
    if model[-2:] in ("_A", "_B", "_C"):
        model, shortcut = model[:-2], model[-1]
    config = imagenet_config(model)
    config.model.shortcut = shortcut
    config.model.bn_group_size = 32  # 256 images on 8 GPUs

    config.data.augment = "scale_jitter"
    config.data.color = "pca_imagenet"

    config.batch_size = 256
    config.total_steps = 600_000
    # 0.1 for the paper's 256 images, in proportion for another batch (Goyal et al., section 2.1).
    config.schedule.learning_rate = config.get_ref("batch_size").to_float() * (0.1 / 256)
    config.schedule.name = "plateau"
    config.schedule.patience = 5
    config.eval_every = IMAGENET_TRAIN_IMAGES // config.batch_size
    config.checkpoint_every = config.eval_every

    if name.endswith("_large_batch"):
        _large_batch(config)
    return config


def _large_batch(config: ConfigDict, batch_size: int = 8192) -> None:
    """Goyal et al.: the rate grows with the batch, after a warm-up of five epochs."""
    epoch = IMAGENET_TRAIN_IMAGES // batch_size
    config.model.name += "_v1_5"
    config.model.zero_init_residual = True
    config.data.augment = "inception_crop"
    config.data.color = "none"
    config.data.mean = "channel"
    config.optimizer.nesterov = True
    config.optimizer.weight_decay_on = "kernels"
    config.batch_size = batch_size
    config.total_steps = 90 * epoch
    config.schedule.name = "step"
    config.schedule.warmup_steps = 5 * epoch
    config.schedule.boundaries = (30 * epoch, 60 * epoch, 80 * epoch)
    config.eval_every = epoch
    config.checkpoint_every = epoch
    config.log_every = 50
