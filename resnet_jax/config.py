"""The keys of a run's config, their checks, and the parts of a run that are built from them.

A file of `configs/` starts from `base_config()` and changes some values. Unknown keys are refused,
with the nearest known ones.
"""

import math
import operator
import pathlib
import runpy
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from etils import epath
from flax import linen as nn
from flax import traverse_util
from ml_collections import ConfigDict, FieldReference
from ml_collections.config_dict import placeholder

from resnet_jax import data, parallel
from resnet_jax.errors import InputError, unknown
from resnet_jax.models import create_model, image_shape, model_options, option_types

IMAGENET_TRAIN_IMAGES = 1_281_167
"""Training images of ImageNet 2012."""

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
"""The folder of the configs, in a checkout."""

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}

_AT_LEAST_ONE = (
    *("data.image_size", "data.workers", "data.statistics_examples"),
    *("batch_size", "eval_batch_size", "total_steps", "schedule.patience"),
    *("log_every", "eval_every", "checkpoint_every", "keep_newest", "prefetch"),
)
_TIMEOUTS = {
    "first_step": 1800.0,  # which compiles
    "step": 600.0,
    "input": None,  # of a batch
    "save": 600.0,
    "evaluation": 1800.0,  # of a batch, the first of which compiles
}
_RANGES: Mapping[str, tuple[float, float]] = {
    **dict.fromkeys(_AT_LEAST_ONE, (1, math.inf)),
    **dict.fromkeys(("seed", "keep_best", "skip_steps"), (0, math.inf)),
    **dict.fromkeys(map("timeouts.{}".format, _TIMEOUTS), (1, math.inf)),
    **dict.fromkeys(("label_smoothing", "optimizer.momentum", "optimizer.weight_decay"), (0, 1)),
}
"""The least value of a key, and the one that it has to be less than; `None` is always allowed."""

_MAY_CHANGE = frozenset(
    {
        *("data.path", "data.workers", "data.max_bad_share", "eval_batch_size", "parallel"),
        *("log_every", "eval_every", "checkpoint_every", "keep_newest", "keep_best"),
        *("prefetch", "compilation_cache", "profile", "model.lowering", "skip_steps"),
        *map("timeouts.{}".format, _TIMEOUTS),
    }
)
"""Keys that are not the run's identity: where it runs, how often it reports, what it keeps."""


def base_config() -> ConfigDict:
    """Returns every key with its default; `None` leaves the choice to the part that reads it.

    A run that is older than a key goes on with its default: the default of a new key has to change
    nothing.
    """
    config = ConfigDict()

    config.model = ConfigDict()
    config.model.name = "resnet50"
    # The fields of all networks, see `resnet_jax.models`; None leaves a network's own default.
    # num_classes is by default that of the data; bn_group_size is a number of images or "global".
    for option, kind in option_types().items():
        if option != "bn_axis_name":  # the training step sets it
            config.model[option] = placeholder(kind)

    # How layers are compiled: "plain", or "fast" on this platform; None: `training.train` takes
    # "fast" for a new run.
    config.model.lowering = placeholder(str)

    config.init = ConfigDict()  # fine-tuning
    config.init.source = placeholder(str)  # a workdir, a file of weights, or an id of a hub
    config.init.new = ("head",)  # modules that start anew
    config.init.freeze = ()  # modules that stay as they are, their batch normalisation too

    config.data = ConfigDict()
    config.data.source = "digits"  # or "folder", "mnist", "tfds"
    config.data.name = placeholder(str)  # of tfds' data set: "cifar10", "name/config:version"
    config.data.path = placeholder(str)  # the folder; or tfds' data_dir (None: tfds' own)
    config.data.train_split = "train"  # and slices, as tfds writes them: "train[:45000]"
    config.data.eval_split = "test"
    config.data.image_size = 224  # pixels
    config.data.eval_resize = placeholder(int)  # of the shorter side before the crop; None: no crop
    config.data.interpolation = "bilinear"  # or "bicubic"
    config.data.in_memory = True  # decoded once; False: each time, as random crops need
    config.data.workers = placeholder(int)  # threads that decode; None: as many as cores
    # Of the training examples, the share that may be unreadable (and ten besides).
    config.data.max_bad_share = 1e-3
    # "none", "pad_crop", "pad_crop_flip", "random_crop", "scale_jitter" or "inception_crop"
    config.data.augment = "none"
    config.data.padding = 4  # pixels around an image, for the augmentations that pad and crop
    # Random colours, along the principal components of those of the training images ("pca") or of
    # ImageNet ("pca_imagenet"); or "none".
    config.data.color = "none"
    config.data.color_std = 0.1  # of the coefficients of the components
    config.data.mean = "pixel"  # subtracted: the mean image ("pixel"), "channel" or "none"
    config.data.std = "channel"  # divided by: "channel" or "none"
    config.data.statistics_examples = placeholder(int)  # for mean and std; None: all

    config.batch_size = 256  # images of a step, over all devices
    config.eval_batch_size = placeholder(int)  # None: batch_size
    config.total_steps = 600_000
    config.seed = 0  # of the initialisation, the order and the augmentation
    config.dtype = "float32"  # of the arithmetic: float32 or bfloat16
    config.label_smoothing = 0.0
    # How many steps with a number that is infinite or NaN are left out, before one ends the run.
    config.skip_steps = 0

    config.optimizer = ConfigDict()
    config.optimizer.momentum = 0.9
    config.optimizer.nesterov = False
    config.optimizer.weight_decay = 1e-4  # coupled: added to the gradient
    config.optimizer.weight_decay_on = "all"  # or "kernels": neither biases nor BN's parameters

    config.schedule = ConfigDict()
    config.schedule.name = "step"  # or "plateau", "cosine", "constant"
    config.schedule.learning_rate = 0.1
    config.schedule.boundaries = ()  # "step": steps at which the rate is multiplied by `factor`
    config.schedule.factor = 0.1
    config.schedule.patience = 5  # "plateau": evaluations without improvement before `factor`
    config.schedule.min_improvement = 0.0  # percentage points of top-1 error that count as one
    config.schedule.min_scale = 1e-3  # the least share of `learning_rate`
    config.schedule.warmup_steps = 0
    config.schedule.warmup_learning_rate = placeholder(float)  # None: rising to `learning_rate`

    config.log_every = 100  # steps
    config.eval_every = 5000
    config.checkpoint_every = 5000
    config.keep_newest = 3  # checkpoints
    config.keep_best = 1
    config.prefetch = 2  # batches read ahead
    config.parallel = "pmap"  # or "shard_map"
    # Seconds without progress after which a process counts as hung, and ends itself.
    config.timeouts = ConfigDict(_TIMEOUTS)
    config.timeouts.input = placeholder(float)  # None: 45 with several processes, else 600
    config.compilation_cache = placeholder(str)  # a private folder for compiled programs
    config.profile = placeholder(tuple)  # first and last step of a profile, for TensorBoard
    return config


def imagenet_config(name: str) -> ConfigDict:
    """Returns `base_config()` for the network of this name on ImageNet 2012 of tfds.

    Images have the network's own size. In evaluation they are the centres of images whose shorter
    side is 256 for 224 pixels, and in proportion for others.
    """
    config = base_config()
    config.model.name = name
    config.data.source = "tfds"
    config.data.name = "imagenet2012"
    config.data.eval_split = "validation"
    config.data.in_memory = False
    config.data.image_size = image_shape(name)[0]
    config.data.eval_resize = usual_resize(config)
    config.data.statistics_examples = 50_000  # enough for a mean image
    return config


def usual_resize(config: ConfigDict) -> FieldReference:
    """Returns the size before the crop, 256 for 224 pixels, which follows the config's size."""
    return (config.data.get_ref("image_size") * (256 / 224) + 0.5).to_int()


def load_config(spec: str) -> ConfigDict:
    """Returns the config of `FILE:NAME`, such as "cifar10.py:resnet20", of the folder `configs/`.

    Raises:
      InputError: There is no such file or name.
    """
    file, _, name = spec.partition(":")
    files = sorted(path.name for path in CONFIGS.glob("*.py"))
    if file not in files:
        raise unknown(f"file of {CONFIGS}", file, files)
    return runpy.run_path(str(CONFIGS / file))["get_config"](*filter(None, [name]))


def complete(values: Mapping[str, Any]) -> ConfigDict:
    """Returns `base_config()` with these values, such as those of a `config.json`.

    Raises:
      InputError: A key is unknown or a value is of another type.
    """
    config = base_config()
    defaults = traverse_util.flatten_dict(config.to_dict(), sep=".")
    update(config, values)
    for key, value in traverse_util.flatten_dict(config.to_dict(), sep=".").items():
        if value is None and defaults[key] is not None:  # ml_collections takes None for any type
            raise InputError(f"{key} is None; it must be like {defaults[key]!r}")
    return config


def update(config: ConfigDict, values: Mapping[str, Any], *, prefix: str = "") -> None:
    """Changes values of a config in place; `prefix` is the name of the key that holds it.

    Raises:
      InputError: A key is unknown or a value is of another type.
    """
    for key, value in values.items():
        name = prefix + key
        if key not in config:
            raise unknown("key of the config", name, [prefix + k for k in config])
        if isinstance(config[key], ConfigDict):
            if not isinstance(value, Mapping):
                raise InputError(f"{name} is {value!r}; it has keys of its own")
            update(config[key], value, prefix=name + ".")
            continue
        if isinstance(value, list):  # JSON has no tuples
            value = tuple(value)
        try:
            config[key] = value
        except TypeError as error:
            wanted = config.get_type(key).__name__
            raise InputError(f"{name} is {value!r}; it must be of type {wanted}") from error


def check(config: ConfigDict) -> None:
    """Refuses values that the parts of a run would refuse late, or not at all.

    Raises:
      InputError: A key is unknown, or a value is of another type or out of its range.
    """
    complete(config.to_dict())
    for key, (least, below) in _RANGES.items():
        value = operator.attrgetter(key)(config)
        if value is not None and not least <= value < below:
            wanted = f"at least {least}" if below == math.inf else f"in [{least}, {below})"
            raise InputError(f"{key} is {value}; it must be {wanted}")
    match config.profile:
        case None | (int(), int()):
            pass
        case wrong:
            raise InputError(f"profile is {wrong}; it must be two steps, such as (100, 110)")
    if config.dtype not in DTYPES:
        raise unknown("dtype", config.dtype, DTYPES)
    if config.data.in_memory and build_augmentation(config).crop is not None:
        raise InputError(
            f"data.augment {config.data.augment!r} crops images as they are decoded; it needs "
            "data.in_memory to be False"
        )


def may_change(config: ConfigDict) -> frozenset[str]:
    """Returns the keys that may differ when a run is started again in its workdir.

    The length of a run is one of them unless the schedule depends on it (cosine). The interval of
    evaluations is one of them unless the schedule looks at their results (plateau).
    """
    match config.schedule.name:
        case "cosine":
            return _MAY_CHANGE
        case "plateau":
            return _MAY_CHANGE - {"eval_every"} | {"total_steps"}
        case _:
            return _MAY_CHANGE | {"total_steps"}


def choose_lowering(config: ConfigDict, stored: Mapping[str, Any] | None = None) -> ConfigDict:
    """Returns the config with `model.lowering` given, by a default if it was None.

    The default is "fast" for a new run. One that goes on, whose `config.json` is `stored`, keeps
    the form that it has begun with, which is plain if it is older than this key.
    """
    if config.model.lowering is not None:
        return config
    config = config.copy_and_resolve_references()
    config.model.lowering = "fast" if stored is None else stored.get("model", {}).get("lowering")
    return config


def build_model(config: ConfigDict, num_classes: int, **fields: Any) -> nn.Module:
    """Returns the network of `config.model`.

    `num_classes`, that of the data, gives way to the config's; networks ignore further fields that
    they do not have.

    Raises:
      InputError: The network is unknown, or an option is not one of its fields.
    """
    options = {k: v for k, v in config.model.items() if k != "name" and v is not None}
    fields = {"num_classes": num_classes, "dtype": DTYPES[config.dtype], **fields}
    known = model_options(config.model.name)
    fields = {k: v for k, v in fields.items() if k in known}
    return create_model(config.model.name, **{**fields, **options})


def build_augmentation(config: ConfigDict) -> data.Augmentation:
    """Returns the augmentation of the training images.

    Raises:
      InputError: The augmentation is unknown, or a number is out of range.
    """
    return data.augmentation(
        config.data.augment,
        image_size=config.data.image_size,
        padding=config.data.padding,
        color_std=0.0 if config.data.color == "none" else config.data.color_std,
    )


def load_images(
    config: ConfigDict, split: str, bad_records: data.BadRecords | None = None
) -> data.ImageSet:
    """Returns a split of the data of `config.data`, which one of several processes lists.

    Without `bad_records`, which counts them, examples that cannot be read are errors.

    Raises:
      InputError: The data or the split is missing.
    """
    return data.load_images(
        config.data.source,
        split,
        config.data.image_size,
        name=config.data.name,
        path=config.data.path,
        in_memory=config.data.in_memory,
        resize=config.data.eval_resize,
        interpolation=config.data.interpolation,
        workers=config.data.workers,
        bad_records=bad_records,
        once=parallel.once,
    )


def data_name(config: ConfigDict) -> str:
    """Returns the name of the data of `config.data`, for titles."""
    if config.data.source == "tfds":
        return config.data.name
    return config.data.source if config.data.path is None else epath.Path(config.data.path).name
