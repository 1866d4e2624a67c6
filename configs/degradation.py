"""Plain and residual networks of 8, 20 and 32 layers on the handwritten digits of the package.

    python train.py --workdir W --config configs/degradation.py:plain32

Names: plain8, plain20, plain32, resnet8, resnet20, resnet32: the CIFAR-10 networks of section 4.2
with 8 filters in place of 16. `python -m resnet_jax reproduce degradation --out R` trains them all.

Data: 1,437 images of 8x8 pixels to train on and 360 to test on, as they are, without augmentation.

Expected (training error of the last state): plain8 0%, plain20 a few percent at most, plain32 worse
than plain20; resnet20 and resnet32 at most 0.1%.

Cost: three runs of each take 3.6 minutes in all on two cores without an accelerator.
"""

from ml_collections import ConfigDict

from resnet_jax.config import base_config
from resnet_jax.errors import unknown

NAMES = tuple(f"{kind}{depth}" for kind in ("plain", "resnet") for depth in (8, 20, 32))


def get_config(name: str = "plain32") -> ConfigDict:
    """Returns the config of the network `cifar_<name>`, 8 filters wide."""
    if name not in NAMES:
        raise unknown("network of configs/degradation.py", name, NAMES)
    config = base_config()
    config.model.name = f"cifar_{name}"
    config.model.width = 8
    config.data.source = "digits"
    config.data.image_size = 8
    config.batch_size = 64
    config.model.bn_group_size = config.get_ref("batch_size")  # on any number of devices
    config.total_steps = 300
    config.schedule.boundaries = (150, 225)
    config.log_every = 10
    config.eval_every = 300
    config.checkpoint_every = 300
    return config
