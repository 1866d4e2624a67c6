"""FLOPs, bytes and times of networks, against numbers by hand and the paper's."""

import functools

import pytest
from flax import linen as nn
from jax import numpy as jnp

from resnet_jax import InputError, create_model, summarize
from resnet_jax.analysis.roofline import DEVICES, Device, Operation, Roofline, draw_roofline
from resnet_jax.cli.roofline import main
from resnet_jax.models import image_shape
from resnet_jax.models.normalization import BatchNorm

ROUND = Device(bfloat16=1e12, float32=5e11, bandwidth=1e9, source="round numbers")


@functools.cache
def roofline(name, **options):
    summary = summarize(create_model(name), image_shape(name))
    return Roofline(summary, DEVICES["h100"], **{"batch": 256, **options})


def operations(model, image_shape, **options):
    summary = summarize(model, image_shape)
    found = Roofline(summary, ROUND, **{"dtype": "float32", "batch": 1, **options}).operations
    return sorted((o.layer, o.phase, o.flops, o.bytes) for o in found)


class Residual(nn.Module):
    """Maps of 64 numbers: a convolution, and another one with a shortcut around it."""

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Conv(4, (3, 3), use_bias=False, name="conv1")(x)
        x = nn.relu(BatchNorm(name="bn1")(x, train=train))
        y = nn.Conv(4, (1, 1), use_bias=False, name="conv2")(x)
        x = nn.relu(BatchNorm(name="bn2")(y, train=train) + x)
        return nn.Dense(3, name="head")(x.mean(axis=(1, 2)))


def test_inference_by_hand():
    # The image has 32 numbers, kernels 72 and 16, the head 15; conv2 reads the shortcut to add it.
    assert operations(Residual(), (4, 4, 2), train=False) == [
        ("avg_pool", "forward", 0, 4 * (64 + 4)),
        ("conv1", "forward", 2 * 16 * 72, 4 * (32 + 64 + 72)),
        ("conv2", "forward", 2 * 16 * 16, 4 * (64 + 64 + 64 + 16)),
        ("head", "forward", 2 * 12, 4 * (4 + 3 + 15)),
    ]


def test_training_by_hand():
    assert operations(Residual(), (4, 4, 2)) == sorted(
        [
            # The operation itself, or the gradient of its parameters.
            *(
                operation
                for phase in ("forward", "backward")
                for operation in [
                    ("conv1", phase, 2 * 16 * 72, 4 * (32 + 64 + 72)),
                    ("conv2", phase, 2 * 16 * 16, 4 * (64 + 64 + 16)),
                    ("head", phase, 2 * 12, 4 * (4 + 3 + 15)),
                    ("avg_pool", phase, 0, 4 * (4 + 64)),
                ]
            ),
            # The gradients of their inputs, of which conv2's is added to that of the shortcut.
            ("conv2", "backward", 2 * 16 * 16, 4 * (64 + 64 + 64 + 16)),
            ("head", "backward", 2 * 12, 4 * (4 + 3 + 15)),
            # The normalisations: statistics, then in and out; two sums, then two in and one out.
            ("conv1", "forward", 0, 4 * (64 + 64 + 64)),
            ("conv1", "backward", 0, 4 * (2 * 64 + 2 * 64 + 64)),
            ("conv2", "forward", 0, 4 * (64 + 64 + 64 + 64)),
            ("conv2", "backward", 0, 4 * (2 * 64 + 2 * 64 + 64)),
            ("update", "backward", 0, 4 * 5 * (72 + 16 + 15 + 2 * 8)),
        ]
    )


class Branches(nn.Module):
    """Two convolutions on one input, side by side, and one that skips rows and columns."""

    @nn.compact
    def __call__(self, x, *, train):
        conv = functools.partial(nn.Conv, kernel_size=(1, 1), use_bias=False)
        x = conv(4, name="a")(x)
        x = jnp.concatenate([conv(4, name=name)(x) for name in "bc"], axis=-1)
        return conv(2, strides=2, name="d")(x)


def test_branches_and_strides_by_hand():
    backward = [o for o in operations(Branches(), (4, 4, 2)) if o[1] == "backward"]
    assert [(name, size) for name, _, _, size in backward] == [
        ("a", 4 * (32 + 64 + 8)),
        ("b", 4 * (64 + 64 + 16)),  # of the parameters
        ("b", 4 * (64 + 64 + 16)),  # of the input
        ("c", 4 * (64 + 64 + 16)),
        ("c", 4 * (64 + 2 * 64 + 16)),  # which is added to that of b
        ("d", 4 * (32 + 8 + 16)),  # a quarter of the input
        ("d", 4 * (8 + 128 + 16)),
        ("update", 4 * 5 * (8 + 16 + 16 + 16)),
    ]


def test_batch_and_type_change_activations_but_not_parameters():
    one = operations(Branches(), (4, 4, 2), batch=1, train=False)
    ten = operations(Branches(), (4, 4, 2), batch=10, train=False, dtype="bfloat16")
    assert one[0] == ("a", "forward", 2 * 16 * 8, 4 * (32 + 64) + 4 * 8)
    assert ten[0] == ("a", "forward", 10 * 2 * 16 * 8, 10 * 2 * (32 + 64) + 4 * 8)


def test_resnet50_has_the_papers_multiply_adds():
    found = roofline("resnet50", train=False)
    flops = sum(operation.flops for operation in found.operations)
    assert flops / 2 / 256 == pytest.approx(3.8e9, rel=0.02)  # table 1
    training = sum(operation.flops for operation in roofline("resnet50").operations)
    stem = 2 * 118_013_952 * 256
    assert training == 3 * flops - stem  # the image has no gradient


@pytest.mark.parametrize("name", ["resnet50", "googlenet", "cifar_resnet8"])
def test_the_stages_sum_up_and_batch_normalisation_moves_more_in_training(name):
    found = roofline(name)
    each = [found.times(operations) for operations in found.stages.values()]
    sums = [sum(column) for column in zip(*each, strict=True)]
    assert sums == pytest.approx(found.times(found.operations))
    inference = roofline(name, train=False)
    forward = sum(o.bytes for o in found.operations if o.phase == "forward")
    more = forward - sum(operation.bytes for operation in inference.operations)
    assert (more > 0) == any(layer.statistics for layer in found.summary.layers)
    assert more >= 0
    assert "update" not in inference.stages


def test_an_operation_takes_the_longer_of_both_times():
    summary = summarize(Branches(), (4, 4, 2))
    found = Roofline(summary, ROUND, 1, "float32")
    computing = Operation("a", "forward", flops=10**12, bytes=10**9)
    moving = Operation("a", "backward", flops=10**11, bytes=3 * 10**9)
    assert found.times([computing]) == (2, 1, 2)
    assert found.times([moving]) == (0.2, 3, 3)
    assert found.times([computing, moving]) == pytest.approx((2.2, 4, 5))
    assert Roofline(summary, ROUND, 1).times([computing]) == (1, 1, 1)  # in bfloat16


def test_the_plot_has_the_stages():
    found = roofline("resnet50")
    times = {stage: found.times(o)[-1] for stage, o in found.stages.items()}
    limit = found.times(found.operations)[-1]
    left, right = draw_roofline(found, "resnet50", measured=2 * limit).axes
    flops = {stage: sum(o.flops for o in own) for stage, own in found.stages.items()}
    drawn = [tuple(dot.get_offsets()[0]) for dot in left.collections]
    assert [y for _, y in drawn] == pytest.approx(
        [flops[s] / t / 1e12 for s, t in times.items() if flops[s] and t > 0.01 * limit]
    )
    assert [text.get_text() for text in left.texts][:5] == ["1", "3", "4", "5", "6"]
    at_limit, measured, roof = (line.get_xydata() for line in left.lines)
    assert at_limit[0] == pytest.approx(measured[0] * (1, 2))
    assert roof[-1][1] == pytest.approx(989.4)
    assert all(y <= min(989.4, 3.35 * x) * 1.000001 for x, y in [*drawn, at_limit[0]])
    bars = [sum(bar.get_width() for bar in stage) for stage in zip(*right.containers, strict=True)]
    assert bars == pytest.approx([1e3 * time for time in times.values()])
    assert next(label.get_text() for label in right.get_yticklabels()) == "stem/conv  1"


def test_the_command_prints_and_draws(capsys, tmp_path):
    out = tmp_path / "new" / "roofline.png"
    main(["cifar_resnet8", "--batch", "128", "--measured", "1", "--out", str(out)])
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split("  ")[0] == "stage"
    assert [line.split()[0] for line in lines[:7]] == [
        *("stem/conv", "stage1", "stage2", "stage3", "avg_pool", "head", "update")
    ]
    assert lines[7].split()[0] == "all"
    assert lines[7].split()[-1] == "100.0%"
    assert lines[9].startswith("H100 SXM, www.nvidia.com/en-us/data-center/h100: 989.4 TFLOP/s")
    assert lines[11].startswith("training, batch 128, bfloat16: 0.")
    assert lines[12].startswith("measured 1.000 ms, 128,000 images/s: ")
    assert lines[13] == str(out)
    assert out.read_bytes().startswith(b"\x89PNG")


def test_a_device_of_ones_own(capsys):
    main(["lenet5", "--task", "infer", "--batch", "1", "--peak", "0.1", "--bandwidth", "20"])
    assert "the given device: 0.1 TFLOP/s, 20 GB/s" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet51"], "there is no model 'resnet51'; did you mean"),
        (["resnet18", "--kind", "h10"], "there is no kind of device 'h10'; did you mean h100"),
        (["resnet18", "--batch", "0"], "--batch is 0; it must be at least 1"),
        (["resnet18", "--peak", "1"], "a device is either --kind, or --peak and --bandwidth"),
        (
            ["resnet18", "--kind", "h100", "--peak", "1", "--bandwidth", "1"],
            "a device is either --kind, or --peak and --bandwidth together",
        ),
        (["resnet18", "--peak", "0", "--bandwidth", "1"], "--peak is 0; it must be above 0"),
        (["resnet18", "--measured", "nan"], "--measured is nan; it must be above 0"),
        (["resnet18", "--task", "test"], "argument --task: invalid choice: 'test'"),
        (["resnet18", "--out", "a.pdf"], "--out is a.pdf; it must be a file whose name ends in"),
        (["resnet18", "--option", "widht=3"], "there is no option of resnet18 'widht'; did you"),
    ],
)
def test_wrong_input_is_refused(capsys, arguments, message):
    with pytest.raises(InputError) as error:
        main(arguments)
    assert str(error.value).startswith(message)
    assert capsys.readouterr().out == ""
