"""Holds a network against one in torch that has the same weights, in float64."""

import functools
import importlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from flax import traverse_util

from tests.models.shapes import shapes
from tests.quick import QUICK


def _torch() -> Any:
    try:
        return importlib.import_module("torch")
    except ImportError:
        return None


torch = _torch()
F = torch and torch.nn.functional
needs_torch = pytest.mark.skipif(torch is None, reason="needs torch")

COLLECTIONS = ["batch_stats", "auxiliary_logits"]


def random_variables(module, pixels, channels=3):
    """Returns variables that hold nothing which would hide a mistake, such as biases of zero."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        name = path[-1].key
        if name in ("scale", "var", "coefficient"):
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        spread = 1.5 / np.sqrt(leaf.size / leaf.shape[-1]) if name == "kernel" else 0.3
        return rng.normal(0, spread, leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes(module, pixels, channels))


def compare(
    module,
    pixels: int,
    run_torch: Callable,
    *,
    channels: int = 3,
    batch: int = 2,
    convert: Callable = lambda params, stats: (params, stats),
    tolerance: float = 1e-5,
    gradients: bool = True,
):
    """Compares outputs in both modes, and in training gradients and statistics.

    Gradients are those of a weighted sum of all logits, of parameters and images.

    Args:
      module: The network, without dropout.
      pixels: Side of the images.
      run_torch: `(images as NCHW, params, stats, train) -> list of logits, new stats`; of these it
        may leave some out.
      channels: Of the images.
      batch: Number of images.
      convert: Turns our parameters (or their gradients) and statistics into the reference's.
      tolerance: Largest difference, as a share of the largest value of its kind. Where many layers
        divide by the deviations of a few positions, rounding grows on its way.
      gradients: Whether gradients are compared, which takes most of the time.
    """
    rng = np.random.default_rng(1)
    images = rng.normal(0.3, 1, (batch, pixels, pixels, channels)).astype(np.float32)
    weights = rng.normal(size=(3, batch, module.num_classes)).astype(np.float32)
    variables = random_variables(module, pixels, channels)

    def weighted(outputs, weights):
        return functools.reduce(
            lambda total, pair: total + (pair[0] * pair[1]).sum(),
            zip(outputs[1:], weights[1:], strict=False),
            (outputs[0] * weights[0]).sum(),
        )

    def run_jax(params, images, train):
        logits, updates = module.apply(
            {**variables, "params": params}, images, train=train, mutable=COLLECTIONS
        )
        outputs = [logits, *jax.tree.leaves(updates.get("auxiliary_logits", {}))]
        return weighted(outputs, weights), (outputs, updates.get("batch_stats", {}))

    @functools.partial(jax.jit, compiler_options=QUICK)
    def run(params, images):
        outputs = run_jax(params, images, False)[1][0]
        if not gradients:
            return outputs, (None, run_jax(params, images, True)[1])
        with_gradients = jax.grad(run_jax, argnums=(0, 1), has_aux=True)
        return outputs, with_gradients(params, images, True)

    double = functools.partial(torch.tensor, dtype=torch.float64)
    params, stats = convert(variables["params"], variables.get("batch_stats", {}))
    params = jax.tree.map(lambda a: double(a).requires_grad_(), params)
    stats = jax.tree.map(double, stats)
    inputs = double(images).requires_grad_()
    evaluated, _ = run_torch(inputs.permute(0, 3, 1, 2), params, stats, False)
    outputs, new_stats = run_torch(inputs.permute(0, 3, 1, 2), params, stats, True)
    ours, (found, (our_outputs, our_stats)) = run(variables["params"], images)
    _, our_stats = convert({}, our_stats)
    worst = {
        "evaluation": largest_difference(ours, [y.detach() for y in evaluated]),
        "training": largest_difference(our_outputs, [y.detach() for y in outputs]),
        "statistics": largest_difference(our_stats, new_stats, some=True),
    }
    if gradients:
        weighted(outputs, double(weights)).backward()
        of_params, _ = convert(found[0], {})
        expected = jax.tree.map(lambda t: t.grad, params)
        worst["gradients"] = largest_difference(of_params, expected)
        worst["of the images"] = largest_difference(found[1], inputs.grad)
    print(type(module).__name__, pixels, {kind: f"{share:.1e}" for kind, share in worst.items()})
    assert max(worst.values()) < tolerance, worst


def largest_difference(ours, theirs, *, some=False):
    """Returns the largest difference, as a share of the largest value of all leaves.

    Of all, as a later normalisation cancels most of some gradients, and leaves rounding.
    """
    ours = dict(jax.tree_util.tree_leaves_with_path(ours))
    theirs = dict(jax.tree_util.tree_leaves_with_path(theirs))
    assert ours.keys() >= theirs.keys() if some else ours.keys() == theirs.keys()
    largest = max((float(t.abs().max()) for t in theirs.values()), default=1.0)
    differences = [np.abs(ours[path] - t.numpy()).max() for path, t in theirs.items()]
    return max(differences, default=0.0) / largest


def convolve(x, p, stride=1, padding=None, groups=1):
    """Returns a convolution of NCHW with our parameters; `padding` is that of the same size."""
    kernel = p["kernel"].permute(3, 2, 0, 1)
    padding = kernel.shape[-1] // 2 if padding is None else padding
    return F.conv2d(x, kernel, p.get("bias"), stride, padding, groups=groups)


def linear(x, p):
    """Returns a fully connected layer with our parameters."""
    return x @ p["kernel"] + p["bias"]


def flatten(x):
    """Returns NCHW as our networks flatten it."""
    return x.permute(0, 2, 3, 1).flatten(1)


def normalize(x, p, s, train, epsilon, momentum=0.9):
    """Returns batch normalisation from its definition, and the new statistics."""
    if not train:
        mean, var, new = s["mean"], s["var"], s
    else:
        mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
        new = {
            "mean": momentum * s["mean"] + (1 - momentum) * mean.detach(),
            "var": momentum * s["var"] + (1 - momentum) * var.detach(),
        }
    mean, var, scale, bias = (a[:, None, None] for a in (mean, var, p["scale"], p["bias"]))
    return (x - mean) / torch.sqrt(var + epsilon) * scale + bias, new


def torch_names(params, stats, names):
    """Returns our variables in the layout and by the names of a torch state dict.

    Args:
      params: Our parameters.
      stats: Our statistics.
      names: Our submodule's path to torch's prefix and, for the first linear layer, the sides and
        channels of the maps that it flattens; torch flattens channels first.
    """
    found, statistics = {}, {}
    for path, leaf in traverse_util.flatten_dict(params, sep=".").items():
        ours, _, kind = path.rpartition(".")
        prefix, maps = names(ours)
        leaf = np.array(leaf)
        if kind == "kernel" and leaf.ndim == 4:
            leaf = leaf.transpose(3, 2, 0, 1)
        elif kind == "kernel":
            if maps is not None:
                leaf = leaf.reshape(*maps, -1).transpose(2, 0, 1, 3).reshape(leaf.shape)
            leaf = leaf.T
        found[f"{prefix}.{'bias' if kind == 'bias' else 'weight'}"] = leaf
    for path, leaf in traverse_util.flatten_dict(stats, sep=".").items():
        ours, _, kind = path.rpartition(".")
        statistics[f"{names(ours)[0]}.running_{kind}"] = np.array(leaf)
    return found, statistics


def run_module(make, x, p, s, train):
    """Runs a torch module that is given its state; strict, so that every name has to fit.

    The running variances are left out: torch's are unbiased.
    """
    module = make().double().train(train)
    state = {**p, **{name: value.clone() for name, value in s.items()}}
    norms = {name for name in module.state_dict() if name.endswith("num_batches_tracked")}
    state |= {name: torch.zeros((), dtype=torch.long) for name in norms}
    assert state.keys() == module.state_dict().keys()
    outputs = torch.func.functional_call(module, state, (x,), strict=True)
    outputs = outputs if isinstance(outputs, list) else [outputs]
    means = {name: state[name] for name in s if name.endswith("running_mean")}
    return outputs, means
