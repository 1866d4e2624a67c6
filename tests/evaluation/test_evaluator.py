import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from resnet_jax.data import Statistics, load_images
from resnet_jax.errors import InputError
from resnet_jax.evaluation import Evaluator, evaluate, same_classes
from resnet_jax.models import create_model
from resnet_jax.parallel import Replicas


@pytest.fixture(scope="module")
def images():
    return load_images("digits", "test", 8)


STATISTICS = Statistics(mean=np.full(1, 100, np.float32), std=np.full(1, 50, np.float32))


def errors_written_out(model, variables, images):
    """All at once, in numpy, from the definition."""
    pixels, labels = images.read(np.arange(len(images)))
    logits = model.apply(variables, (jnp.asarray(pixels, jnp.float32) - 100) / 50, train=False)
    logits = np.asarray(logits, np.float64)
    ranks = (logits > logits[np.arange(len(labels)), labels][:, None]).sum(axis=1)
    log_likelihood = logits[np.arange(len(labels)), labels] - np.log(np.exp(logits).sum(axis=1))
    return 100 * np.mean(ranks >= 1), 100 * np.mean(ranks >= 5), -log_likelihood.mean()


@pytest.mark.parametrize(("devices", "batch_size"), [(1, 360), (4, 100), (8, 7)])
def test_every_image_counts_once(images, devices, batch_size):
    model = create_model("cifar_resnet8", stage_sizes=(1,), width=4)
    variables = dict(model.init(jax.random.key(1), jnp.zeros((1, 8, 8, 1)), train=False))
    replicas = Replicas(devices=jax.devices()[:devices])
    evaluator = Evaluator(model, images, STATISTICS, replicas, batch_size=batch_size)
    found = evaluator(replicas.place(variables))
    top1, top5, loss = errors_written_out(model, variables, images)
    assert found.examples == 360
    assert found.top1_error == pytest.approx(top1, abs=1e-9)
    assert found.top5_error == pytest.approx(top5, abs=1e-9)
    assert found.loss == pytest.approx(loss, rel=1e-5)


class Brightness(nn.Module):
    """Has as many classes as it is told, and likes none of them more than another but the first."""

    classes: int

    @nn.compact
    def __call__(self, images, *, train):
        bias = self.param("bias", nn.initializers.zeros, (self.classes,))
        return jnp.zeros((len(images), self.classes)) + bias.at[0].set(1.0)[None]


def test_fewer_than_five_classes_have_a_top5_error_of_zero(images):
    class FewClasses:
        class_names = ("0", "1", "2")
        image_shape = (8, 8, 1)

        def __len__(self):
            return 5

        def read(self, indices, crops=None):
            return np.zeros((len(indices), 8, 8, 1), np.uint8), np.asarray(indices, np.int32) % 3

    model = Brightness(3)
    replicas = Replicas(devices=jax.devices()[:2])
    variables = {"params": {"bias": jnp.zeros(3)}}
    found = Evaluator(model, FewClasses(), STATISTICS, replicas, batch_size=4)(
        replicas.place(variables)
    )
    assert found.examples == 5
    assert found.top1_error == pytest.approx(60)  # labels 0 1 2 0 1, and 0 is what it says
    assert found.top5_error == 0


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"is no workdir: it has no config\.json"):
        evaluate(tmp_path)
    with pytest.raises(InputError, match="there is no workdir"):
        evaluate(tmp_path / "nothing")
    assert not list(tmp_path.iterdir())


def test_other_classes_than_those_of_training_are_refused(images):
    same_classes(images, [str(digit) for digit in range(10)])
    with pytest.raises(InputError, match=r"\(10 and 9\): label 3 is '3' in the former and '4' in"):
        same_classes(images, ["0", "1", "2", "4", "5", "6", "7", "8", "9"])
    with pytest.raises(InputError, match=r"label 9 is '9' in the former and None in the latter"):
        same_classes(images, [str(digit) for digit in range(9)])
