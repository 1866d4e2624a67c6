"""A network of ours against one of torch's (or of Keras') with the same weights, in both modes."""

import functools
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import traverse_util

from resnet_jax.interop.families import key_map
from tests.interop.references import library, logits_of
from tests.precision import double_precision
from tests.quick import QUICK


class Differences(NamedTuple):
    """Largest differences, each as a share of the largest magnitude of its array.

    Attributes:
      logits: Of the logits in evaluation, both in float32.
      loss: Of the loss in training; this and the others both in float64.
      gradients: Of the gradient that differs most.
      statistics: Of the running mean or variance that differs most.
    """

    logits: float
    loss: float
    gradients: float
    statistics: float


def compare(module, pretrained, dialect, *, pixels=64, batch=4):
    """Returns the differences between a module of torch and what it was imported as.

    Training is compared in float64: among the millions of numbers that ReLUs see, a few are so
    close to zero that float32's last bit decides whether they have a gradient, and so torch's
    float32 differs from torch's float64 by percents of a gradient of ResNet-50.

    Afterwards the module is float64, with other running statistics.
    """
    rng = np.random.default_rng(1)
    images = rng.normal(size=(batch, pixels, pixels, 3)).astype(np.float32)
    labels = rng.integers(0, pretrained.network.num_classes, batch)

    logits = evaluate(pretrained, images)
    their_logits = _evaluate(module, images)
    ours = train_ours(pretrained, images, labels)
    key = functools.partial(key_map(type(pretrained.network), dialect).key, pretrained.network)
    theirs = _train(module, images, labels, key)
    return differences_of(pretrained.network, logits, their_logits, ours, theirs)


def differences_of(network, logits, their_logits, ours, theirs):
    """Returns the differences.

    Args:
      network: Ours.
      logits: Its logits in evaluation.
      their_logits: The reference's.
      ours: What `train_ours` returned.
      theirs: Returns the same of the reference, by our name, or None for what it has not.
    """

    def largest(group):
        names = [name for name in ours if name.startswith(group)]
        pairs = {name: theirs(name) for name in names}
        shares = [
            difference(ours[name], other, scale_of(name, other))
            for name, other in pairs.items()
            if other is not None
        ]
        return max(shares, default=0.0)

    def scale_of(name, other):
        if is_cancelled(network, name):  # only rounding is left: it is nothing beside the kernel's
            return np.abs(theirs(name.replace("bias", "kernel"))).max()
        assert ours[name].any()
        return np.abs(other).max()

    return Differences(
        difference(logits, their_logits), *map(largest, ("loss", "params/", "batch_stats/"))
    )


def is_cancelled(network, name):
    """Whether a parameter is a bias that a normalisation takes away again, as in VGG with BN."""
    return bool(getattr(network, "batch_norm", False)) and re.fullmatch(
        r"params/conv[^/]*/bias", name
    )


def difference(one, other, scale=None):
    """Returns the largest difference as a share of the largest magnitude, or of `scale`."""
    assert one.shape == other.shape
    return float(np.abs(one - other).max() / (np.abs(other).max() if scale is None else scale))


def evaluate(pretrained, images):
    """Returns our logits in evaluation, in float32."""
    apply = functools.partial(pretrained.network.apply, train=False)
    return np.asarray(jax.jit(apply, compiler_options=QUICK)(pretrained.variables, images))


def train_ours(pretrained, images, labels):
    """Returns loss, gradients and new statistics of a step in training, in float64, by our names.

    Auxiliary heads add 0.3 of their losses.
    """
    network = pretrained.network.clone(dtype=jnp.float64)

    def loss_of(params, stats, images):
        logits, updates = network.apply(
            {"params": params, "batch_stats": stats},
            images,
            train=True,
            mutable=["batch_stats", "auxiliary_logits"],
        )
        cross_entropy = optax.softmax_cross_entropy_with_integer_labels
        loss = cross_entropy(logits, jnp.asarray(labels)).mean()
        for auxiliary in jax.tree.leaves(updates.get("auxiliary_logits", {})):
            loss += 0.3 * cross_entropy(auxiliary, jnp.asarray(labels)).mean()
        return loss, updates.get("batch_stats", {})

    with double_precision():
        double = functools.partial(jax.tree.map, lambda a: np.asarray(a, np.float64))
        variables = double(pretrained.variables)
        run = jax.jit(jax.value_and_grad(loss_of, has_aux=True), compiler_options=QUICK)
        (loss, stats), gradients = run(
            variables["params"], variables.get("batch_stats", {}), double(images)
        )
        assert loss.dtype == jnp.float64
        outputs = {"loss": loss, "params": gradients, "batch_stats": stats}
        return traverse_util.flatten_dict(jax.device_get(outputs), sep="/")


def _evaluate(module, images):
    torch = library("torch")
    module.eval()
    with torch.no_grad():
        return logits_of(module(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))).numpy()


def _train(module, images, labels, key):
    torch = library("torch")
    module.double().train()
    before = {name: value.clone().numpy() for name, value in module.named_buffers()}
    counts = {}
    for name, norm in module.named_modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.register_forward_hook(
                lambda norm, inputs, _, name=name: counts.update(
                    {name: inputs[0].numel() // inputs[0].shape[1]}
                )
            )
    output = module(torch.from_numpy(images.transpose(0, 3, 1, 2)).double())
    cross_entropy = torch.nn.functional.cross_entropy
    loss = cross_entropy(logits_of(output), torch.from_numpy(labels))
    for head in ("aux_logits1", "aux_logits2"):
        if getattr(output, head, None) is not None:
            loss = loss + 0.3 * cross_entropy(getattr(output, head), torch.from_numpy(labels))
    loss.backward()
    gradients = {name: value.grad.numpy() for name, value in module.named_parameters()}
    buffers = {name: value.numpy() for name, value in module.named_buffers()}

    def value_of(name):
        if name == "loss":
            return loss.detach().numpy()
        mapped = key(name)
        theirs = mapped.name
        if name.startswith("params/"):
            return mapped.to_ours(gradients[theirs])
        if name.endswith("/mean"):
            return buffers[theirs]
        # The variance that torch adds to the running one is divided by one less than it has.
        count = counts[theirs.removesuffix(".running_var")]
        kept = 0.9 * before[theirs]
        return kept + (buffers[theirs] - kept) * (count - 1) / count

    return value_of
