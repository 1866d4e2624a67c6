"""Weights that came from elsewhere, or go there, on the images of a config."""

import json

import numpy as np
import pytest

from resnet_jax import InputError, interop
from resnet_jax.cli.convert import main
from resnet_jax.data import load_images
from resnet_jax.evaluation import evaluate, evaluate_weights, restore, weights_of_run
from resnet_jax.training import train
from tests.interop.references import library, make
from tests.interop.small import random_variables, small_network
from tests.tiny import tiny_config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "run"
    form = {"model.stem": "imagenet", "model.shortcut": "B", "data.mean": "channel"}
    train(tiny_config(total_steps=10, **form), workdir)
    return workdir


@pytest.mark.parametrize("dialect", ["resnet_jax", "torchvision"])
def test_a_run_that_was_exported_has_the_same_errors(run, tmp_path, dialect):
    """To the last bit, although its images have one channel and its max-pool is the paper's."""
    weights, trained = weights_of_run(run), restore(run)
    assert int(weights.arrays["batches_tracked/stage1/block1/bn1/count"]) == trained.step
    np.testing.assert_array_equal(weights.preprocessing.statistics().mean, trained.statistics.mean)
    path = tmp_path / "a.safetensors"
    interop.write_weights(weights, path, dialect, force=True)
    expected = evaluate(run).as_json()
    del expected["step"]
    found = evaluate_weights(path, trained.config)
    assert found.as_json() == {"weights": str(path), **expected}


def test_each_checkpoint_of_a_run_is_converted(run, tmp_path):
    for step, flags in ((10, []), (8, ["--step=8"]), (restore(run, "best").step, ["--best"])):
        path = tmp_path / f"{step}{len(flags)}.safetensors"
        main([str(run), str(path), "--to=resnet_jax", *flags])
        assert interop.read_weights(path).arrays["batches_tracked/stem/bn/count"] == step
    path = tmp_path / "a.safetensors"
    with pytest.raises(InputError, match=r"it has pool_padding \(1, 1\) for \(0, 1\); force it"):
        main([str(run), str(path), "--to=torchvision"])
    main([str(run), str(path), "--to=torchvision", "--force"])
    assert interop.load_pretrained(path).network.pool_padding == (0, 1)


@pytest.mark.filterwarnings("default")
def test_preprocessing_and_errors_are_those_of_torch(tmp_path):
    module = make(
        "huggingface", 50, depths=(1,), hidden_sizes=(16,), embedding_size=4, num_labels=10
    )
    module.save_pretrained(tmp_path)
    mean, std = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]
    preprocessor = {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 28}}
    preprocessor |= {"crop_pct": 0.875, "resample": 3, "image_mean": mean, "image_std": std}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    found = evaluate_weights(tmp_path, tiny_config(), batch_size=50)

    torch, transforms = library("torch"), library("torchvision").transforms
    prepare = transforms.Compose(
        [
            transforms.Resize(32, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(28),
            transforms.PILToTensor(),
            transforms.ConvertImageDtype(torch.float32),
            transforms.Normalize(mean, std),
        ]
    )
    originals, labels = load_images("digits", "test", 8).read(np.arange(360))
    images = [
        prepare(transforms.functional.to_pil_image(image.repeat(3, axis=2))) for image in originals
    ]
    with torch.no_grad():
        logits = module.eval()(torch.stack(images)).logits
    labels = torch.from_numpy(labels).long()
    wrong = logits.topk(5).indices != labels[:, None]
    assert found.examples == 360
    one_image = 1.001 * 100 / 360  # of two classes that are nearly equal either may come first
    assert found.top1_error == pytest.approx(100 * wrong[:, 0].float().mean().item(), abs=one_image)
    assert found.top5_error == pytest.approx(
        100 * wrong.all(1).float().mean().item(), abs=one_image
    )
    loss = torch.nn.functional.cross_entropy(logits, labels).item()
    assert found.loss == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize(
    ("classes", "channels", "message"),
    [
        (7, 3, "knows 7 classes, and the data has 10"),
        (10, 4, "takes images of 4 channels, and what is subtracted has 3"),
        (10, 1, "takes images of 1 channels, and what is subtracted has 3"),
    ],
)
def test_data_of_other_classes_or_channels_is_refused(tmp_path, classes, channels, message):
    network = small_network(num_classes=classes)
    path = tmp_path / "a.safetensors"
    variables, preprocessing = random_variables(network, channels), interop.Preprocessing()
    interop.save_pretrained(network, variables, path, to="torchvision", preprocessing=preprocessing)
    with pytest.raises(InputError, match=f"{path} {message}"):
        evaluate_weights(path, tiny_config())
