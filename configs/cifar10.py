"""The paper's CIFAR-10 networks (section 4.2), by its recipe.

    python train.py --workdir W --config configs/cifar10.py:resnet20

Names: resnet20, 32, 44, 56, 110, 1202 and plain20, 32, 44, 56, 110.

Data: CIFAR-10 as tfds has it, as ArrayRecord or TFRecord. Where it is not yet, prepare it with
`tfds build cifar10 --file_format=array_record`; or take a folder `root/{train,test}/<class>/*` with
`--config.data.source=folder --config.data.path=root`. The paper chose the schedule on 45,000 images
against 5,000: `--config.data.train_split='train[:45000]' --config.data.eval_split='train[45000:]'`.

Expected (table 6, test error in percent, 64k steps): ResNet-20 8.75, 32 7.51, 44 7.17, 56 6.97,
110 6.43 (6.61 +- 0.16 over five runs), 1202 7.93. Of the plain networks the paper shows curves
only: 20, 32, 44 and 56 layers are worse the deeper they are, in training error too, and 110 layers
stay above 60%.

Cost: 64k steps of 128 images see the data 164 times. On a 2-core CPU ResNet-20 takes hours.
"""

from ml_collections import ConfigDict

from resnet_jax.config import base_config
from resnet_jax.errors import unknown

NAMES = (
    *(f"resnet{depth}" for depth in (20, 32, 44, 56, 110, 1202)),
    *(f"plain{depth}" for depth in (20, 32, 44, 56, 110)),
)


def get_config(name: str = "resnet20") -> ConfigDict:
    """Returns the config of the network `cifar_<name>`."""
    if name not in NAMES:
        raise unknown("network of configs/cifar10.py", name, NAMES)
    config = base_config()
    config.model.name = f"cifar_{name}"
    config.model.bn_group_size = 64  # 128 images on 2 GPUs

    config.data.source = "tfds"
    config.data.name = "cifar10"
    config.data.in_memory = True
    config.data.image_size = 32
    config.data.augment = "pad_crop_flip"

    config.batch_size = 128
    config.eval_batch_size = 1000
    config.total_steps = 64_000
    config.schedule.boundaries = (32_000, 48_000)
    if name.endswith(("110", "1202")):
        # The paper warms up until the training error is below 80%, "about 400 iterations".
        config.schedule.warmup_steps = 400
        config.schedule.warmup_learning_rate = 0.01

    config.log_every = 100
    config.eval_every = 1000
    config.checkpoint_every = 1000
    return config
