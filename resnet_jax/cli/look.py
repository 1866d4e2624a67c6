"""Draws what a network sees: `look --what gradcam --workdir W [--image FILE] [--out FILE.png]`.

The network is that of a run (`--step N | --best`), or of other weights: `--weights W`. The image is
a file, or number `--index` of a `--split` of the run's data, or of those of a `--config`.

  filters      The filters of the first layer, as tiles.
  activations  The maps of the layers `--layer stem,stage1`, for an image.
  patches      The `--count` images of a split that excite `--unit` of `--layer` most, and the
               receptive field where they do.
  gradcam      Grad-CAM at `--layer` of `--class`, by default of the most probable class.
  gradients    Signals and norms of gradients, layer by layer, for `--count` training images.

Without `--layer` the last layer with several positions is taken, for activations the last five.
Exit status: 0 done, 2 wrong input.
"""

import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from etils import epath
from jaxtyping import Array, Float, Int32, UInt8

from resnet_jax.analysis import features, gradient_norms, plots
from resnet_jax.cli.frame import Flags, choose_checkpoint, plot_path
from resnet_jax.data import Example, Source, load_source, preprocess
from resnet_jax.errors import InputError, unknown
from resnet_jax.evaluation import Network, Protocol, ViewReader, network_of_weights, restore
from resnet_jax.files import write_atomically
from resnet_jax.models import features as outputs_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ROWS = 64  # images at a time
_LAYERS = 5  # of activations, without --layer

Batch = tuple[
    UInt8[np.ndarray, "n h w c"], Float[Array, "n h w c"], Int32[np.ndarray, " n"]
]  # pixels, the network's input, labels


class _File(list[Example]):
    """An image file as a source."""

    class_names = ("image",)


def main(arguments: Sequence[str]) -> None:
    """Draws what the arguments say and prints the name of the file."""
    command = Flags(__doc__, arguments)
    config = command.define_config("imagenet.py")
    text, number, add = flags.DEFINE_string, flags.DEFINE_integer, command.add
    add(flags.DEFINE_enum, "what", None, list(_DRAW), "What is drawn.")
    add(text, "workdir", None, "The run.")
    add(text, "weights", None, "A file, a folder, or owner/name of the hub.")
    add(number, "step", None, "Step of the checkpoint; by default the newest.")
    add(flags.DEFINE_bool, "best", False, "The checkpoint with the lowest top-1 error.")
    add(text, "image", None, "An image file.")
    add(text, "split", None, "Split of the data.")
    add(number, "index", 0, "Number of the image in the split.", lower_bound=0)
    add(flags.DEFINE_list, "layer", None, "Submodules, such as stage2/block1/conv1.")
    add(number, "unit", 0, "Channel of the layer.", lower_bound=0)
    add(text, "class", None, "Name or number of a class.")
    add(number, "count", None, "Images: 9 for patches, 64 for gradients.", lower_bound=1)
    add(text, "out", "look.png", "The file of the plot.")
    command.parse()
    values = command.values
    if values.what is None:
        raise InputError(f"--what is not given; it is one of {', '.join(_DRAW)}")
    out = plot_path(values.out)
    which = choose_checkpoint(values.step, best=values.best)
    match values.workdir, values.weights:
        case str(workdir), None:
            network = restore(workdir, which)
            if command.config_given:
                network = network._replace(config=config.value)
        case None, str(weights) if which == "newest":
            network = network_of_weights(weights, config.value)
        case _:
            raise InputError("give --workdir, with --step or --best if wanted; or --weights")
    name = epath.Path(network.name).name
    name = name if network.step is None else f"{name}, step {network.step:,}"
    image = io.BytesIO()
    _DRAW[values.what](network, values, name).savefig(image, format="png")
    write_atomically(out, image.getvalue())
    print(out)


def _filters(network: Network, values: flags.FlagValues, name: str) -> "Figure":
    layer, kernel = features.first_filters(network.model, network.variables, network.image_shape)
    height, width, _, filters = kernel.shape
    return plots.plot_filters(kernel, f"{name}\n{layer}: {filters} filters of {height}x{width}")


def _activations(network: Network, values: flags.FlagValues, name: str) -> "Figure":
    layers = tuple(_layers(network, values, most=_LAYERS))
    (pixels, images, _), words = _image(network, values)
    run = jax.jit(outputs_of, static_argnums=(0, 3))
    found = run(network.model, network.variables, images, layers)
    maps = {layer: np.asarray(found[layer][0], np.float32) for layer in layers}
    return plots.plot_activations(pixels[0], maps, f"{name}\nactivations for {words}")


def _patches(network: Network, values: flags.FlagValues, name: str) -> "Figure":
    ((layer, shape),) = _layers(network, values, most=1).items()
    if values.unit >= shape[-1]:
        raise InputError(f"--unit is {values.unit}; {layer} has units 0 to {shape[-1] - 1}")
    source, words = _source(network, values, network.config.data.eval_split)
    found = features.strongest_patches(
        network.model,
        network.variables,
        (images for _, images, _ in _batches(network, source, range(len(source)))),
        layer,
        values.unit,
        examples=len(source),
        count=values.count or 9,
    )
    positions = [(patch.row, patch.column) for patch in found]
    boxes = features.receptive_fields(network.model, network.image_shape, layer, positions)
    pixels, captions = [], []
    for value, example, *_ in found:
        ((image, _, (label,)),) = _batches(network, source, range(example, example + 1))
        pixels.append(image[0])
        captions.append(f"{source.class_names[label]}: {value:.3g}")
    title = f"unit {values.unit} of {layer}: strongest activations in {words}, receptive fields"
    return plots.plot_patches(pixels, boxes, captions, f"{name}\n{title}")


def _grad_cam(network: Network, values: flags.FlagValues, name: str) -> "Figure":
    (layer,) = _layers(network, values, most=1)
    numbers = list(map(str, range(network.num_classes)))
    names, given, target = list(network.class_names or ()), values["class"].value, None
    if given is not None:
        if given not in names and given not in numbers:
            raise unknown("class", given, names or numbers)
        target = (names if given in names else numbers).index(given)
    (pixels, images, _), words = _image(network, values)
    cam, probabilities = features.grad_cam(
        network.model, network.variables, images[0], layer, target
    )
    target = int(probabilities.argmax()) if target is None else target
    title = f"{names[target] if names else f'class {target}'}: {probabilities[target]:.1%}"
    return plots.plot_grad_cam(pixels[0], cam, layer, f"{name}\n{title} in {words}")


def _gradients(network: Network, values: flags.FlagValues, name: str) -> "Figure":
    if values.image is not None:
        raise InputError("gradients are of a --split, whose classes are known, not of an --image")
    source, words = _source(network, values, network.config.data.train_split)
    count = min(values.count or _ROWS, len(source))
    spread = range(0, len(source), len(source) // count)[:count]  # of all classes, if sorted
    ((_, images, labels),) = _batches(network, source, spread, rows=count)
    found = gradient_norms(network.model, network.variables, images, labels)
    return plots.plot_gradients(found, f"{name}\nin training, {count} images of {words}")


_DRAW = {
    "filters": _filters,
    "activations": _activations,
    "patches": _patches,
    "gradcam": _grad_cam,
    "gradients": _gradients,
}


def _layers(network: Network, values: flags.FlagValues, most: int) -> dict[str, tuple[int, ...]]:
    """Returns the layers to draw, and the shapes of their maps."""
    shapes = features.output_shapes(network.model, network.image_shape)
    maps = {name: shape for name, shape in shapes.items() if len(shape) == 3}
    names = [name for name in maps if "/" not in name and maps[name][0] * maps[name][1] > 1]
    if values.layer and most == 1 < len(values.layer):
        raise InputError(f"{values.what} takes one --layer, and {len(values.layer)} are given")
    for name in values.layer or ():
        if name not in maps:
            raise unknown("layer with maps", name, maps)
    if not values.layer and not names:
        raise InputError("the network has no layer with several positions")
    return {name: maps[name] for name in values.layer or names[-most:]}


def _source(network: Network, values: flags.FlagValues, split: str) -> tuple[Source, str]:
    """Returns the images that the arguments name, by default a split, and their name."""
    if values.image is not None:
        path = epath.Path(values.image).expanduser()
        try:
            return _File([Example(path.read_bytes(), 0, str(path))]), path.name
        except OSError as error:
            raise InputError(f"--image cannot be read: {error}") from error
    data, split = network.config.data, values.split or split
    source = load_source(data.source, split, name=data.name, path=data.path)
    if not values.index < len(source):
        raise InputError(f"--index is {values.index}, and {split} has {len(source)} images")
    return source, split


def _image(network: Network, values: flags.FlagValues) -> tuple[Batch, str]:
    """Returns a batch of the one image that the arguments name, and its name."""
    source, words = _source(network, values, network.config.data.eval_split)
    if values.image is not None:
        (batch,) = _batches(network, source, range(1))
        return batch, words
    (batch,) = _batches(network, source, range(values.index, values.index + 1))
    return batch, f"image {values.index} of {words}"


def _batches(
    network: Network, source: Source, examples: range, *, rows: int = _ROWS
) -> Iterator[Batch]:
    """Yields the images as the network receives them; the last batch is filled up."""
    reader = ViewReader(source, examples)
    (bucket,) = reader.buckets(Protocol().views(network.preparation))
    rows = min(rows, len(examples))
    sampling = network.preparation.interpolation
    for batch in reader.batches(bucket, sampling, rows=rows, channels=network.channels):
        images = preprocess({"image": jnp.asarray(batch["image"])}, network.statistics, padding=0)
        yield batch["image"], images, batch["label"]
