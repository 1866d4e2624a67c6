"""Every file of configs/: what it promises can be run."""

import importlib.util
import pathlib
import re

import jax
import jax.numpy as jnp
import pytest

from resnet_jax import config as configs
from resnet_jax.errors import InputError
from resnet_jax.models import image_shape, list_models
from resnet_jax.training.optimizer import make_optimizer
from resnet_jax.training.schedules import make_schedule
from tests.commands import run_command

FOLDER = pathlib.Path(__file__).parents[1] / "configs"
FILES = sorted(path.name for path in FOLDER.glob("*.py"))


def load(file):
    spec = importlib.util.spec_from_file_location(f"configs_{file[:-3]}", FOLDER / file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def names_of(file):
    return getattr(load(file), "NAMES", [None])


NAMED = [(file, name) for file in FILES for name in names_of(file)]
GREY = ("digits", "mnist")


def get(file, name):
    return load(file).get_config(*[name] * (name is not None))


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_every_config_can_be_run(file, name):
    config = get(file, name)
    configs.check(config)
    make_optimizer(config.optimizer)
    make_schedule(config.schedule, config.total_steps)
    configs.build_augmentation(config)

    model = configs.build_model(config, num_classes=10)
    if name not in (None, names_of(file)[0]):
        # That it takes images of its own size is seen where all networks are summarised.
        own = image_shape(config.model.name)[0]
        assert config.data.image_size == (8 if config.data.source == "digits" else own)
        return
    size, channels = config.data.image_size, 1 if config.data.source in GREY else 3
    images = jnp.zeros((2, size, size, channels))
    logits, _ = jax.eval_shape(
        lambda: model.init_with_output(jax.random.key(0), images, train=False)
    )
    assert logits.shape == (2, 10)


@pytest.mark.parametrize("file", FILES)
def test_the_docstring_has_the_command_the_names_the_result_and_the_cost(file):
    module, names = load(file), names_of(file)
    text = " ".join((module.__doc__ or "").split())
    command = re.search(r"python train\.py --workdir W( --config configs/(\S+))?", text)
    assert command is not None
    if command[2] is not None:
        written, _, name = command[2].partition(":")
        assert written == file
        assert names == [None] or name in names
        assert module.get_config() == get(file, name)
    assert re.search(r"Data: .*Expected", text)
    assert names == [None] or re.search("Names: .*Data: .*Expected.*Cost: ", text)


@pytest.mark.parametrize(
    ("file", "wrong", "near"),
    [
        ("cifar10.py", "resnet21", "resnet20"),
        ("imagenet.py", "resnet5", "resnet50"),
        ("lenet.py", "lenet", "lenet5"),
        ("alexnet.py", "alexnt", "alexnet"),
        ("vgg.py", "vgg17", "vgg16"),
        ("googlenet.py", "googlenett", "googlenet"),
        ("prelu_net.py", "prelu_net_d", "prelu_net_c"),
    ],
)
def test_a_name_that_a_file_does_not_have_is_refused(file, wrong, near):
    with pytest.raises(InputError, match=rf"no network of configs/{file} '{wrong}'; .*{near}"):
        get(file, wrong)


def test_fine_tuning_takes_every_network_at_its_own_size_and_refuses_others():
    module = load("finetune.py")
    assert module.get_config().data.eval_resize == 256
    for name in list_models():
        config = module.get_config(name)
        assert (config.model.name, config.data.image_size) == (name, image_shape(name)[0])
    with pytest.raises(InputError, match=r"no model 'resnet51'; did you mean .*resnet50"):
        module.get_config("resnet51")


def test_every_file_with_names_refuses_others():
    for file in FILES:
        if names_of(file) != [None]:
            with pytest.raises(InputError, match=f"no network of configs/{file} 'x'; known are"):
                get(file, "x")


def test_the_program_says_it_in_one_sentence(tmp_path, capsys):
    run, config = tmp_path / "run", FOLDER / "cifar10.py"
    ended = run_command(capsys, "train.py", f"--workdir={run}", f"--config={config}:resnet21")
    assert ended.status == 2
    assert ended.err.startswith(
        "train.py: the config cannot be read: there is no network of configs/cifar10.py 'resnet21'"
    )
    assert len(ended.err.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("spec", ["imagenet.py:resnet18", "finetune.py:resnet50_v1_5"])
def test_the_size_before_the_crop_follows_the_size_of_the_images_unless_given(spec):
    config = configs.load_config(spec)
    assert config.data.eval_resize == 256
    configs.update(config, {"data": {"image_size": 64}})
    assert config.data.eval_resize == 73
    configs.update(config, {"data": {"eval_resize": 80}})
    assert config.data.eval_resize == 80
