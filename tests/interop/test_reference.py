"""Networks of torchvision, timm and transformers, imported from the files that they write.

The largest differences are printed: `pytest -m slow -s tests/interop/test_reference.py` makes the
table of all of them.
"""

import pytest

from resnet_jax import create_model
from resnet_jax.interop import load_pretrained
from tests.interop.comparison import compare
from tests.interop.references import DEPTHS, library, make

NETWORKS = [
    *(("torchvision", depth, "3x3") for depth in DEPTHS),
    *(("timm", depth, "3x3") for depth in DEPTHS),
    *(("huggingface", depth, "3x3") for depth in DEPTHS),
    *(("huggingface", depth, "1x1") for depth in DEPTHS),
]


def write(name, module, folder):
    """Saves a network as its library's users do; returns the path."""
    if name == "huggingface":
        module.save_pretrained(folder)
        return folder
    if name == "torchvision":
        library("torch").save(module.state_dict(), folder / "weights.pth")
        return folder / "weights.pth"
    path = folder / "weights.safetensors"
    library("safetensors.torch").save_file(module.state_dict(), path)
    return path


@pytest.mark.parametrize(
    ("name", "depth", "stride_on"),
    NETWORKS,
)
@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_network_equals_its_reference_in_both_modes(name, depth, stride_on, tmp_path):
    module = make(name, depth, stride_on=stride_on)
    pretrained = load_pretrained(write(name, module, tmp_path))
    same = {"stride_on": stride_on, "pool_padding": (1, 1)}
    assert pretrained.network == create_model(f"resnet{depth}", **same)

    found = compare(module, pretrained, name)
    numbers = "  ".join(f"{field} {value:.1e}" for field, value in found._asdict().items())
    print(f"\n{name:12}  {depth:3}  stride on {stride_on}  {numbers}")
    check(found)


@pytest.mark.parametrize(
    ("depth", "stride_on"), [(18, "3x3"), (50, "1x1"), (50, "3x3")], ids=["basic", "v1", "v1.5"]
)
@pytest.mark.filterwarnings("default")
def test_a_small_network_equals_its_reference(depth, stride_on, tmp_path):
    small = {"depths": (2, 1), "embedding_size": 8, "num_labels": 10}
    small["hidden_sizes"] = (8, 16) if depth == 18 else (32, 64)
    module = make("huggingface", depth, stride_on=stride_on, **small)
    pretrained = load_pretrained(write("huggingface", module, tmp_path))
    # Stages of 10 and 5 pixels: odd sizes are where paddings show.
    check(compare(module, pretrained, "huggingface", pixels=40))


def check(found):
    assert found.logits < 1e-5
    assert max(found.loss, found.gradients, found.statistics) < 1e-8


@pytest.mark.slow
def test_a_wrong_form_is_noticed(tmp_path):
    """The comparison is not blind: each invisible field moves it by percents."""
    module = make("huggingface", 50, stride_on="1x1")
    path = write("huggingface", module, tmp_path)
    stride = load_pretrained(path, stride_on="3x3")
    pool = load_pretrained(path, pool_padding=(0, 1))
    for wrong in (stride, pool):
        found = compare(module.float(), wrong, "huggingface")
        assert min(found.logits, found.gradients, found.statistics) > 1e-2
