import functools
import importlib.util
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import resnet_jax
from resnet_jax import InputError, interop
from resnet_jax.cli.export import main
from resnet_jax.data import Statistics, preprocess
from resnet_jax.interop import export
from resnet_jax.training import train
from tests.models.torch_reference import QUICK, random_variables
from tests.tiny import tiny_config

pytest.importorskip("flatbuffers")

HIDDEN = {"filters": (8, 8, 8, 8, 8), "hidden_units": 8}
SMALL = {
    "cifar_resnet8": ({"width": 4}, (16, 16, 3)),
    "resnet18": ({"width": 4}, (40, 40, 3)),
    "resnet50_v1_5": ({"width": 4, "stage_sizes": (1, 1), "output_stride": 4}, (40, 40, 3)),
    "lenet5": ({}, (32, 32, 1)),
    "lenet5_1998": ({}, (32, 32, 1)),
    "alexnet": (HIDDEN, (67, 67, 3)),
    "alexnet_torchvision": (HIDDEN, (63, 63, 3)),
    "zfnet": (HIDDEN, (47, 47, 3)),
    "vgg11_bn": ({"width": 2, "hidden_units": 8}, (40, 40, 3)),
    "googlenet": ({"width": 8, "auxiliary_units": 8}, (80, 80, 3)),
    "bn_inception": ({"width": 8}, (48, 48, 3)),
    "prelu_net_a": (
        {"filters": (4, 4, 4), "stem_filters": 4, "stage_sizes": (1, 1, 1), "hidden_units": 8},
        (40, 40, 3),
    ),
}


@pytest.fixture(scope="module")
def network():
    return initialised("cifar_resnet8")


def initialised(name):
    options, shape = SMALL[name]
    model = resnet_jax.create_model(name, num_classes=10, **options)
    return model, random_variables(model, shape[0], shape[-1]), shape


def deserialize(content):
    """Returns a program as jax alone reads it."""
    return jax.export.deserialize(bytearray(content))


def test_every_family_is_exported_here():
    def families(names):
        return {type(resnet_jax.create_model(name)) for name in names}

    assert families(SMALL) == families(resnet_jax.list_models())


@pytest.mark.parametrize("name", SMALL)
def test_a_program_equals_the_network(name):
    model, variables, shape = initialised(name)
    program = deserialize(export.export_stablehlo(model, variables, shape))
    assert program.platforms == ("cpu", "cuda", "tpu")
    run = jax.jit(program.call, compiler_options=QUICK)
    apply = jax.jit(functools.partial(model.apply, train=False), compiler_options=QUICK)
    for batch in (1, 3) if name == "cifar_resnet8" else (2,):
        images = np.random.default_rng(batch).normal(size=(batch, *shape)).astype(np.float32)
        wanted = np.asarray(apply(variables, images))
        np.testing.assert_allclose(run(images), wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def test_with_statistics_it_takes_pixels(network):
    model, variables, shape = network
    rng = np.random.default_rng(0)
    mean = rng.uniform(90, 130, shape).astype(np.float32)
    statistics = Statistics(mean, np.array([50, 60, 70], np.float32))
    content = export.export_stablehlo(model, variables, shape, statistics=statistics)
    pixels = rng.integers(0, 256, (3, *shape), np.uint8)
    wanted = model.apply(
        variables, preprocess({"image": jnp.asarray(pixels)}, statistics, padding=0), train=False
    )
    program = deserialize(content)
    np.testing.assert_allclose(program.call(pixels), np.asarray(wanted), rtol=1e-4, atol=1e-5)


def test_a_run_and_weights_are_exported_from_the_command_line(tmp_path, capsys):
    train(tiny_config(total_steps=4), tmp_path / "run")
    main([str(tmp_path / "run"), str(tmp_path / "a.stablehlo")])
    assert "uint8 pixels, [n, 8, 8, 1] -> logits, cpu,cuda,tpu" in capsys.readouterr().out
    logits = deserialize((tmp_path / "a.stablehlo").read_bytes()).call(
        np.zeros((2, 8, 8, 1), np.uint8)
    )
    assert logits.shape == (2, 10)
    with pytest.raises(InputError, match=r"there is something at .* already; name a new file"):
        main([str(tmp_path / "run"), str(tmp_path / "a.stablehlo")])

    model = resnet_jax.create_model("resnet18", num_classes=10, width=4)
    images = jnp.zeros((1, 32, 32, 3))
    variables = random_variables(model, 32)
    weights, out = tmp_path / "w.safetensors", tmp_path / "b.stablehlo"
    preprocessing = interop.Preprocessing(image_size=32, resize=32)
    interop.save_pretrained(model, variables, weights, to="resnet_jax", preprocessing=preprocessing)
    main([str(weights), str(out), "--normalised", "--platforms", "cpu"])
    assert "normalised float32 images, [n, 32, 32, 3] -> logits, cpu" in capsys.readouterr().out
    program = deserialize(out.read_bytes())
    assert program.platforms == ("cpu",)
    wanted = model.apply(variables, images, train=False)
    np.testing.assert_allclose(program.call(images), np.asarray(wanted), rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="is not a run, so it has no checkpoints to choose from"):
        main([str(weights), str(tmp_path / "c"), "--best"])
    with pytest.raises(InputError, match="is not a run, so it has no checkpoints to choose from"):
        main([str(weights), str(tmp_path / "c"), "--step", "4"])
    with pytest.raises(InputError, match="--step and --best each name a checkpoint; give one"):
        main([str(tmp_path / "run"), str(tmp_path / "c"), "--step", "4", "--best"])
    with pytest.raises(InputError, match="no checkpoint 3"):
        main([str(tmp_path / "run"), str(tmp_path / "c"), "--step", "3"])
    with pytest.raises(InputError, match="no platform 'gpu'; "):
        main([str(weights), str(tmp_path / "c"), "--platforms", "gpu"])
    assert {path.name for path in tmp_path.iterdir()} == {
        *("run", "a.stablehlo", "b.stablehlo", "w.safetensors")
    }


def test_networks_that_cannot_be_exported_are_refused(network):
    model, variables, shape = network
    with pytest.raises(InputError, match="no platform 'rocm'; known are cpu, cuda, tpu"):
        export.export_stablehlo(model, variables, shape, platforms=["rocm"])
    with pytest.raises(InputError, match=r"the platforms are \(\); name one or more"):
        export.export_stablehlo(model, variables, shape, platforms=[])
    with pytest.raises(
        InputError, match=r"the platforms are \('cpu', 'cpu'\); name one or more, each"
    ):
        export.export_stablehlo(model, variables, shape, platforms=["cpu", "cpu"])
    with pytest.raises(
        InputError, match=r"cannot be exported with these variables .*\(16, 16, 1\)"
    ):
        export.export_stablehlo(model, variables, (16, 16, 1))
    lenet, lenet_variables, _ = initialised("lenet5")
    with pytest.raises(InputError, match="LeNet-5 needs images of 32x32 pixels"):
        export.export_stablehlo(lenet, lenet_variables, (28, 28, 1))


def test_without_flatbuffers_it_says_so(network, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        InputError, match=r"flatbuffers has to be installed: pip install 'resnet_jax\[export\]'"
    ):
        export.export_stablehlo(*network)


def test_the_program_ends_with_a_sentence(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-m", "resnet_jax", "export", "nowhere", str(tmp_path / "x")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("resnet_jax export: ")
    assert len(ended.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())
