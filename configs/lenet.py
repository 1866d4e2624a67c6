"""LeNet-5 (1998) on MNIST.

    python train.py --workdir W --config configs/lenet.py:lenet5 --config.data.path=FOLDER
    python evaluate.py --workdir W

Names: lenet5; lenet5_1998, with the paper's sparse connections and its distances to codes as
outputs; lenet5_modern, with average pooling and ReLU.

Data: MNIST's four files in FOLDER, gzipped or not: `train-images-idx3-ubyte`,
`train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte`, `t10k-labels-idx1-ubyte`.

The paper (LeCun, Bottou, Bengio, Haffner, Proceedings of the IEEE, November 1998, section III)
trained for 20 epochs, one image at a time, by a stochastic diagonal Levenberg-Marquardt method.
Here it is gradient descent with momentum on batches of 64, and images are shifted by up to a pixel.

Expected: at most 1.0% test error for lenet5 (0.78%, 0.81% and 0.85% were measured with seeds 0, 1
and 2; one image is 0.01%); the paper has 0.95%, and 0.8% with distorted images.

Cost: 10 epochs of 60,000 images, two minutes on two cores without an accelerator.
"""

from ml_collections import ConfigDict

from resnet_jax.config import base_config
from resnet_jax.errors import unknown

NAMES = ("lenet5", "lenet5_1998", "lenet5_modern")
TRAIN_IMAGES = 60_000


def get_config(name: str = "lenet5") -> ConfigDict:
    """Returns the config of a form of LeNet-5."""
    if name not in NAMES:
        raise unknown("network of configs/lenet.py", name, NAMES)
    config = base_config()
    config.model.name = name

    config.data.source = "mnist"
    config.data.image_size = 32
    config.data.augment = "pad_crop"
    config.data.padding = 1
    config.data.mean = "none"  # so that the padding of 0 is background

    config.batch_size = 64
    config.eval_batch_size = 1000
    epoch = TRAIN_IMAGES // config.batch_size
    config.total_steps = 10 * epoch
    config.schedule.name = "cosine"
    config.schedule.learning_rate = 0.02
    config.optimizer.weight_decay = 1e-4

    config.log_every = 100
    config.eval_every = 2 * epoch
    config.checkpoint_every = 2 * epoch
    return config
