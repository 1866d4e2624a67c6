r"""Fine-tuning on a folder of photos, from another run or from published weights.

    python train.py --workdir W --config configs/finetune.py:resnet50_v1_5 \
        --config.init.source=resnet50.safetensors --config.data.path=root

Names: any that `resnet_jax.list_models()` has, on images of its own size. Weights of torchvision,
timm and Hugging Face are of `resnet18_v1_5` to `resnet152_v1_5`, and torchvision's of
`alexnet_torchvision`, `vgg11` to `vgg19_bn` and `googlenet_bn` too; those of Keras and Caffe are of
`resnet50`, `resnet101` and `resnet152`, and Keras' want `--config.model.pool_padding="(1,1)"` and
`--config.model.bn_epsilon=1.001e-5` besides.

The source is another run's workdir, or a source of `resnet_jax.load_pretrained`: a file
of safetensors, PyTorch (`.pth`), Keras (`.h5`, `.keras`) or Caffe (`.caffemodel`), a folder with
one, or an id of the hub.

Data: `root/{train,val}/<class>/*`, JPEG or PNG.

The head starts anew and all parameters are trained, with a tenth of the rate for training from
scratch. To keep the first stages as they are, their batch normalisation too:
`--config.init.freeze="('stem','stage1','stage2')"`.

Expected: depends on the data. As a check of the method: a `cifar_resnet8` that was trained on five
classes of CIFAR-10 and fine-tuned on the other five is better than one with the same steps from
scratch (see docs/results.md).
"""

from ml_collections import ConfigDict

from resnet_jax.config import base_config, usual_resize
from resnet_jax.models import image_shape


def get_config(name: str = "resnet50_v1_5") -> ConfigDict:
    """Returns the config of a network.

    Raises:
      InputError: The name is unknown.
    """
    config = base_config()
    config.model.name = name

    config.data.source = "folder"
    config.data.eval_split = "val"
    config.data.in_memory = False
    config.data.image_size = image_shape(name)[0]
    config.data.eval_resize = usual_resize(config)
    config.data.augment = "inception_crop"
    config.data.mean = "channel"

    config.batch_size = 64
    config.total_steps = 2000
    config.schedule.name = "cosine"
    config.schedule.learning_rate = 0.01
    config.schedule.warmup_steps = 100
    config.optimizer.weight_decay_on = "kernels"

    config.log_every = 50
    config.eval_every = 500
    config.checkpoint_every = 500
    return config
