"""Sources of weights: files, folders, the hub, an object store."""

import json
import sys
import types

import numpy as np
import pytest

from resnet_jax import InputError
from resnet_jax.interop import load_pretrained, save_pretrained
from resnet_jax.interop.formats.safetensors import read_safetensors, write_safetensors
from tests.interop.small import random_variables, small_network, write


def test_a_missing_source_is_refused(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"there is no file or folder .*nothing.pth"):
        load_pretrained(tmp_path / "nothing.pth")
    with pytest.raises(InputError, match=r"has no model.safetensors or pytorch_model.bin"):
        load_pretrained(tmp_path)
    with pytest.raises(
        InputError, match="there is no dialect 'tochvision'; did you mean torchvisi"
    ):
        load_pretrained(
            write(tmp_path / "a.safetensors", small_network()),
            dialect="tochvision",  # pyrefly: ignore
        )
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"owner/name is not .* pip install 'resnet_jax\[hub\]'$"):
        load_pretrained("owner/name")


@pytest.mark.parametrize("name", ["a.pth", "a.h5", "a.keras", "a.bin", "a"])
@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html><html>404</html>", bytes(5000)])
def test_a_file_of_another_kind_is_not_taken_for_safetensors(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name} cannot be read: it is not a file of weights of"):
        load_pretrained(tmp_path / name)
    write(tmp_path / name, small_network())
    assert load_pretrained(tmp_path / name).network == small_network()


def test_a_folder_in_place_of_a_file_is_refused(tmp_path):
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(InputError, match=r"model.safetensors cannot be read: .*Is a directory"):
        load_pretrained(tmp_path)


def test_an_unknown_store_is_refused():
    network, url = small_network(), "https://example.org/a.safetensors"
    with pytest.raises(InputError, match=r"^https://example.org/a.safetensors is in no store that"):
        load_pretrained(url)
    with pytest.raises(InputError, match=r"^https://example.org/a.safetensors is in no store that"):
        save_pretrained(network, random_variables(network), url, to="torchvision")


def test_messages_are_fit_for_a_terminal(tmp_path):
    path = tmp_path / "a.safetensors"
    wrong = {"a\x1b[2J": np.zeros((2, 0), np.float32)}
    write_safetensors(path, wrong, {})
    with pytest.raises(InputError, match=r"a\?\[2J is of type F32 and shape \(2, 0\)$") as raised:
        load_pretrained(path)
    assert str(raised.value).isprintable()
    write(path, small_network())
    arrays, _ = read_safetensors(path)
    write_safetensors(path, arrays, {"resnet_jax": json.dumps({"network": "a" * 10**6})})
    with pytest.raises(InputError, match=r"says of its network aaaa.*aaa\.\.\.$") as raised:
        load_pretrained(path)
    assert len(str(raised.value)) < 1100


class Hub(types.ModuleType):
    """Has one repository, a folder here."""

    def __init__(self, root, weights):
        super().__init__("huggingface_hub")
        self.root, self.weights, self.asked = root, weights, []

    def snapshot_download(self, repository, *, revision, allow_patterns):
        self.asked.append((repository, revision, allow_patterns[-1]))
        if repository != "owner/name":
            raise OSError("404 Client Error\nRepository Not Found")
        self.root.mkdir(exist_ok=True)
        if allow_patterns[-1] == self.weights:
            write(self.root / self.weights, small_network())
        return str(self.root)


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_a_repository_of_the_hub_is_a_folder(tmp_path, monkeypatch, weights):
    hub = Hub(tmp_path / "a", weights)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    found = load_pretrained("owner/name@v2")
    assert (found.network, found.source) == (small_network(), "owner/name@v2")
    assert hub.asked[0] == ("owner/name", "v2", "model.safetensors")
    assert len(hub.asked) == (1 if weights == "model.safetensors" else 2)
    with pytest.raises(InputError, match=r"and the hub does not give it: 404 Client Error$"):
        load_pretrained("owner/other")


def test_an_object_store_is_read_and_written(object_store):
    network = small_network()
    folder = object_store / "a"
    save_pretrained(network, random_variables(network), folder, to="huggingface")
    assert load_pretrained(folder).network == network
