import re

import pytest

from resnet_jax import InputError, ResNet, create_model, list_models
from resnet_jax.models import image_shape, model_options


def model_fields(name, *fields, **options):
    model = create_model(name, **options)
    return tuple(getattr(model, field) for field in fields)


def test_list_models_is_sorted_and_complete():
    expected = {f"resnet{d}{form}" for d in (18, 34, 50, 101, 152) for form in ("", "_v1_5")}
    expected |= {"plain18", "plain34"}
    expected |= {f"cifar_resnet{d}" for d in (8, 20, 32, 44, 56, 110, 1202)}
    expected |= {f"cifar_plain{d}" for d in (8, 20, 32, 44, 56, 110)}
    names = list_models()
    assert names == sorted(names)
    assert len(names) == len(set(names))
    assert expected <= set(names)
    family = re.compile(r"(cifar_)?(resnet|plain)\d+(_v1_5)?")
    assert expected == {name for name in names if family.fullmatch(name)}


def test_the_networks_before_it_are_listed():
    names = {"alexnet", "alexnet_torchvision", "bn_inception", "googlenet", "googlenet_bn"}
    names |= {"lenet5", "lenet5_1998", "lenet5_modern", "zfnet", "zfnet_wide"}
    names |= {f"prelu_net_{model}" for model in "abc"}
    names |= {f"vgg{depth}{form}" for depth in (11, 13, 16, 19) for form in ("", "_bn")}
    residual = re.compile(r"(cifar_)?(resnet|plain)\d+(_v1_5)?")
    assert names == {name for name in list_models() if not residual.fullmatch(name)}


@pytest.mark.parametrize("name", list_models())
def test_every_network_has_the_options_that_all_share(name):
    assert {"num_classes", "dtype"} <= model_options(name)
    assert model_fields(name, "num_classes", num_classes=10) == (10,)


def test_options_are_the_fields_of_the_module():
    fields = model_fields("resnet18", "shortcut", "num_classes", shortcut="A", num_classes=10)
    assert fields == ("A", 10)
    assert model_fields("resnet18", "pool_padding", "stride_on") == ((0, 1), "1x1")
    assert model_fields("resnet18_v1_5", "pool_padding", "stride_on") == ((1, 1), "3x3")
    assert model_fields("plain18", "shortcut", shortcut=None) == (None,)
    assert model_fields("cifar_resnet20", "shortcut", "num_classes", "width") == ("A", 10, 16)
    assert "shortcut" in model_options("resnet18")
    assert "shortcut" not in model_options("plain18")
    assert not {"name", "parent"} & model_options("resnet18")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("resnet50", (224, 224, 3)),
        ("cifar_resnet20", (32, 32, 3)),
        ("cifar_plain20", (32, 32, 3)),
        ("lenet5", (32, 32, 1)),
        ("alexnet", (227, 227, 3)),
    ],
)
def test_networks_know_the_images_that_they_were_designed_for(name, shape):
    assert image_shape(name) == shape


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: create_model("resnet51"), "there is no model 'resnet51'; did you mean resnet"),
        (lambda: create_model("ResNet50"), "did you mean .*resnet50"),
        (lambda: image_shape("resnet51"), "there is no model 'resnet51'; did you mean resnet"),
        (lambda: model_options("plain50"), "there is no model 'plain50'; did you mean .*plain18"),
        (
            lambda: create_model("resnet18", num_clases=10),
            "there is no option of resnet18 'num_clases'; did you mean num_classes",
        ),
        (
            lambda: create_model("plain18", shortcut="A"),
            "plain18 has no option 'shortcut'; a network of another name has",
        ),
        (
            lambda: create_model("plain18", shortcuts="A"),
            "there is no option of plain18 'shortcuts'",
        ),
        (
            lambda: create_model("resnet18", shortcut="a"),
            "shortcut is 'a'; it must be one of 'A', 'B', 'C', None",
        ),
        (
            lambda: create_model("resnet50", stride_on="2x2"),
            "stride_on is '2x2'; it must be one of '1x1', '3x3'",
        ),
        (
            lambda: create_model("resnet50", stem="mnist"),
            "stem is 'mnist'; it must be one of 'imagenet', 'cifar'",
        ),
        (
            lambda: create_model("resnet18", num_classes=0),
            "num_classes is 0; it must be at least 1",
        ),
        (lambda: ResNet((1,), pool_padding=(3, 0)), r"pool_padding is \(3, 0\); it must be two of"),
        (lambda: ResNet((1,), width=-16), "width is -16; it must be at least 1"),
        (lambda: ResNet(()), r"stage_sizes is \(\); it needs numbers, each of them at least 1"),
        (
            lambda: ResNet([2, 0]),
            r"stage_sizes is \(2, 0\); it needs numbers, each of them at least 1",
        ),
        *(
            (
                lambda group=group: create_model("resnet18", bn_group_size=group),
                f"bn_group_size is {group!r}; it must be a positive number of images, "
                "'global' or None",
            )
            for group in (0, -4, True, 2.0, "all")
        ),
    ],
)
def test_wrong_input_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
