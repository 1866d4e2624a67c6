"""Files of torch, read without it: as torch reads them, and not at all where they are hostile."""

import collections
import contextlib
import os
import pathlib
import pickle
import struct
import subprocess
import sys
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_jax import InputError
from resnet_jax.interop.formats.pytorch import read_torch
from tests.interop.refusals import refused

torch = pytest.importorskip("torch")


def save(path, value, **options):
    torch.save(value, path, **options)
    return path


def tensors():
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(4, 6, generator=generator)
    images = torch.randn(2, 3, 5, 5, generator=generator)
    return collections.OrderedDict(
        matrix=base,
        transposed=base.T,
        part=base[1:, 2:5],
        strided=base[::2, ::3],
        channels_last=images.to(memory_format=torch.channels_last),
        scalar=torch.tensor(7),
        double=base.double(),
        half=base.half(),
        bfloat16=base.bfloat16(),
        boolean=base > 0,
        small=torch.arange(-3, 3, dtype=torch.int8),
        parameter=torch.nn.Parameter(base + 1),
    )


def check(found, expected):
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        tensor = tensor.detach()
        assert found[name].shape == tuple(tensor.shape)
        assert found[name].dtype.name == str(tensor.dtype).removeprefix("torch.")
        exact = tensor.double() if tensor.dtype is torch.bfloat16 else tensor
        np.testing.assert_array_equal(found[name].astype(exact.numpy().dtype), exact.numpy())


def test_tensors_of_all_kinds_are_those_that_torch_saved(tmp_path):
    expected = tensors()
    check(read_torch(save(tmp_path / "a.pth", expected)), expected)
    check(read_torch(save(tmp_path / "b.pt", dict(expected))), expected)


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_a_state_dict_beside_other_things_is_found(tmp_path, key):
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    value = {"epoch": 3, key: module.state_dict(), "optimizer": optimizer.state_dict(), "top1": 0.5}
    check(read_torch(save(tmp_path / "a.pth", value)), module.state_dict())


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


class State:
    def __init__(self, inner):
        self.inner = inner

    def __reduce__(self):
        return collections.OrderedDict, (), {"inner": self.inner}


def archive(path, description, members=(), **options):
    """Writes a file as torch does, with any description."""
    with zipfile.ZipFile(path, "w", **options) as file:
        file.writestr("a/data.pkl", description)
        file.writestr("a/byteorder", "little")
        file.writestr("a/version", "3\n")
        for name, content in members:
            file.writestr(f"a/data/{name}", content)
    return path


def tensor_stream(*, size="K\x04", offset="K\x00", shape="K\x04\x85", strides="K\x01\x85", key="0"):
    """Returns the description of one tensor; numbers are instructions that put them there."""
    text = (
        "\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storage"
        f"ctorch\nFloatStorage\nX{chr(len(key))}\x00\x00\x00{key}X\x03\x00\x00\x00cpu{size}tQ"
        f"{offset}{shape}{strides}\x89}}tRs."
    )
    return text.encode("latin1")


def long(number):
    return f"\x8a\x10{number.to_bytes(16, 'little', signed=True).decode('latin1')}"


def test_the_hostile_files_are_made_as_torch_makes_good_ones(tmp_path):
    numbers = np.arange(4, dtype=np.float32)
    path = archive(tmp_path / "a.pth", tensor_stream(), [("0", numbers.tobytes())])
    for found in (read_torch(path), torch.load(path, weights_only=True)):
        np.testing.assert_array_equal(found["w"], numbers)


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
@pytest.mark.parametrize(
    "value",
    [
        lambda evil: evil,
        lambda evil: {"conv1.weight": torch.ones(2), "more": evil},
        lambda evil: {"conv1.weight": [(1, {"a": evil})]},
        lambda evil: {"state_dict": {}, "optimizer": {3: State(evil)}},
        lambda evil: State({"deep": evil}),
    ],
    ids=["alone", "beside", "nested", "wrapped", "state"],
)
def test_code_is_not_run(tmp_path, protocol, value):
    marker = tmp_path / "made"
    path = save(tmp_path / "evil.pth", value(Evil(marker)), pickle_protocol=protocol)
    with zipfile.ZipFile(path) as file:
        description = file.read("evil/data.pkl")
    assert b"mkdir" in description
    refused(path, r"nothing was run")
    assert not marker.exists()

    # The same without torch around it, which is how pickles run.
    if value(None) is None:
        pickle.loads(description)
        assert marker.exists()


@pytest.mark.parametrize(
    ("description", "message"),
    [
        (b"cos\nsystem\n(X\x04\x00\x00\x00exittR.", "asks for os.system, which is not a tensor"),
        (b"cbuiltins\neval\n(X\x01\x00\x00\x001tR.", "asks for builtins.eval"),
        (b"ctorch._utils\n_rebuild_tensor_v2.__globals__\n.", "asks for torch._utils._rebuild"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "instruction SHORT_BINUNICODE"),
        (b"(S'exit'\nios\nsystem\n.", "instruction STRING"),
        (b"\x82\x01.", "instruction EXT1"),
        (b"ccollections\nOrderedDict\n)\x81.", "instruction NEWOBJ"),
        (b"X\x02\x00\x00\x00os)R.", "calls something that is not a tensor"),
        (b"ccollections\nOrderedDict\nK\x01\x85R.", "calls something that is not a tensor"),
        (b"ctorch\nFloatStorage\n)R.", "calls something that is not a tensor"),
        (b"}(X\x01\x00\x00\x00aX\x01\x00\x00\x00bu.", "'a' is not a tensor"),
        (b"}.", "holds no dict of tensors"),
        (b"", "description of the tensors is damaged"),
        (b"t.", "description of the tensors is damaged"),
        (b"](}]s.", "description of the tensors is damaged"),
        (b"}(K\x01u.", "description of the tensors is damaged"),
        (b"\xff\xff", "description of the tensors is damaged"),
        (b"X\xff\xff\xff\x7fabc.", "description of the tensors is damaged"),
        (b"\x96\xff\xff\xff\xff\xff\xff\xff\x00.", "description of the tensors is damaged"),
        (b"Nr\xff\xff\xff\xff0.", "instruction POP"),
        (b"X\x01\x00\x00\x00aQ.", "description of the tensors is damaged"),
    ],
)
def test_a_description_of_anything_else_is_refused(tmp_path, description, message):
    refused(archive(tmp_path / "a.pth", description), message)


MAX = 2**62


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": long(MAX)}, f"has 16 bytes and not {MAX} numbers"),
        ({"size": long(-4)}, "has 16 bytes and not -4 numbers"),
        ({"size": "K\x05"}, "has 16 bytes and not 5 numbers"),
        ({"key": "1"}, "in data/1, which it does not have"),
        ({"key": "../../x"}, "in data/../../x, which it does not have"),
        ({"offset": "K\x01"}, "reaches beyond the 4 numbers"),
        ({"offset": long(MAX)}, "reaches beyond the 4 numbers"),
        ({"offset": long(-1)}, "offset -1"),
        ({"shape": f"{long(MAX)}\x85"}, "reaches beyond the 4 numbers"),
        ({"shape": f"{long(-4)}\x85"}, r"shape \(-4,\)"),
        ({"shape": "K\x00\x85"}, r"shape \(0,\)"),
        ({"shape": f"{long(MAX)}\x85", "strides": "K\x00\x85"}, "larger than the file"),
        ({"shape": "(" + "K\x64" * 8 + "t", "strides": "(" + "K\x00" * 8 + "t"}, "larger than"),
        (
            {"shape": "(" + "K\x01" * 64 + "t", "strides": "(" + "K\x01" * 64 + "t"},
            r"has the shape \(1, 1,",
        ),
        ({"strides": "K\x02\x85"}, "reaches beyond the 4 numbers"),
        ({"strides": f"{long(-1)}\x85"}, r"strides \(-1,\)"),
        ({"strides": ")"}, r"shape \(4,\), strides \(\)"),
        ({"shape": "X\x01\x00\x00\x004\x85"}, "description of the tensors is damaged"),
        ({"shape": "\x88\x85"}, "description of the tensors is damaged"),
        ({"offset": "G" + "\x00" * 8}, "calls something that is not a tensor"),
    ],
)
def test_numbers_that_lie_are_refused(tmp_path, changes, message):
    path = archive(tmp_path / "a.pth", tensor_stream(**changes), [("0", bytes(16))])
    refused(path, message)


def test_one_storage_is_not_made_into_more_than_the_file(tmp_path):
    numbers = torch.zeros(1000)
    many = {f"w{i}": numbers.as_strided((1000,), (1,)) for i in range(1000)}
    refused(save(tmp_path / "a.pth", many), "larger than the file")


def test_a_bomb_is_not_unpacked(tmp_path):
    path = tmp_path / "a.pth"
    archive(path, tensor_stream(), [("0", bytes(10**8))], compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 10**6
    refused(path, "data.pkl is compressed or encrypted, as torch writes none")
    long_stream = archive(tmp_path / "b.pth", bytes(2**24 + 1))
    refused(long_stream, "longer than any network's")


def patched(path, *, member, field, value):
    """Overwrites a number in the central directory, where the archive lists its members."""
    content = bytearray(path.read_bytes())
    entry = content.rfind(b"PK\x01\x02", 0, content.rfind(member.encode()))
    offset, layout = {"packed": (20, "<L"), "size": (24, "<L"), "where": (42, "<L")}[field]
    struct.pack_into(layout, content, entry + offset, value)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"packed": 2**32 - 2, "size": 2**32 - 2}, "claims to be larger than the file"),
        ({"size": 2**32 - 2}, "claims to be larger than the file"),
        ({"packed": 8, "size": 8}, "has 8 bytes and not 4 numbers"),
        ({"where": 2**31}, "archive is damaged"),
        ({"where": 0}, "archive is damaged"),
    ],
)
def test_an_archive_that_lies_is_refused(tmp_path, fields, message):
    path = archive(tmp_path / "a.pth", tensor_stream(), [("0", bytes(16))])
    for field, value in fields.items():
        patched(path, member="a/data/0", field=field, value=value)
    refused(path, message)


def test_members_that_overlap_are_refused(tmp_path):
    stream = tensor_stream()
    path = archive(tmp_path / "a.pth", stream, [(str(i), bytes(10**5)) for i in range(8)])
    content = path.read_bytes()
    first = content.find(b"PK\x03\x04", content.find(b"a/data/0"))
    last = content.rfind(b"PK\x03\x04")
    with zipfile.ZipFile(path) as file:
        start = file.getinfo("a/data/0").header_offset
    for i in range(8):
        patched(path, member=f"a/data/{i}", field="where", value=start)
    # Without the bytes that nothing points to any more.
    content = path.read_bytes()
    size = last - first + len(content[last : content.find(b"PK\x01\x02")])
    shorter = bytearray(content[:first] + content[content.find(b"PK\x01\x02") :])
    end = shorter.rfind(b"PK\x05\x06")
    (directory,) = struct.unpack_from("<L", shorter, end + 16)
    struct.pack_into("<L", shorter, end + 16, directory - size)
    path.write_bytes(shorter)
    refused(path, "claims to be larger than the file|damaged")


@pytest.mark.parametrize("twice", ["a/data/0", "a/data.pkl"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_is_there_twice_is_refused(tmp_path, twice):
    path = archive(tmp_path / "a.pth", tensor_stream(), [("0", bytes(16))])
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(twice, bytes(16))
    refused(path, "is there twice")


def test_two_descriptions_or_another_order_of_bytes_are_refused(tmp_path):
    path = archive(tmp_path / "a.pth", tensor_stream(), [("0", bytes(16)), ("data.pkl", b"}.")])
    refused(path, r"has 2 descriptions of tensors \(data.pkl\), not 1")
    with zipfile.ZipFile(tmp_path / "b.pth", "w") as file:
        file.writestr("a/data.pkl", tensor_stream())
        file.writestr("a/byteorder", "big")
    refused(tmp_path / "b.pth", "not in little-endian order")


def test_a_flipped_bit_is_noticed(tmp_path):
    path = save(tmp_path / "a.pth", {"w": torch.arange(100.0)})
    content = bytearray(path.read_bytes())
    content[content.find(torch.arange(100.0).numpy().tobytes()) + 50] ^= 1
    path.write_bytes(content)
    refused(path, "archive is damaged .Bad CRC-32")


def test_the_old_format_is_refused_with_the_command_that_converts_it(tmp_path):
    path = tmp_path / "a.pth"
    evil = {"w": Evil(tmp_path / "made")}
    save(path, evil, _use_new_zipfile_serialization=False)
    refused(path, r"from before version 1.6.*torch.save\(torch.load\(path, weights_only=True\)")
    assert not (tmp_path / "made").exists()


def good_file(folder):
    path = folder / "good.pth"
    if not path.exists():
        save(path, {"w": torch.arange(12.0).reshape(3, 4), "n": torch.tensor(3)})
    return path


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_damage_is_noticed_or_harmless(tmp_path_factory, data):
    """Cut anywhere and with any bytes changed, a file is refused in a sentence, or is read."""
    folder = pathlib.Path(tmp_path_factory.getbasetemp())
    content = bytearray(good_file(folder).read_bytes())
    content = content[: data.draw(st.integers(8, len(content)))]
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(4, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = folder / "damaged.pth"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with contextlib.suppress(InputError):
            read_torch(path)
        assert tracemalloc.get_traced_memory()[1] < 3e6
    finally:
        tracemalloc.stop()


def test_nothing_of_torch_is_imported_to_read_its_files(tmp_path):
    path = save(tmp_path / "a.pth", {"w": torch.ones(2)})
    program = (
        "import sys; from resnet_jax.interop.formats.pytorch import read_torch;"
        f"print(read_torch({str(path)!r})['w'].sum(), 'torch' in sys.modules,"
        "'huggingface_hub' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.stdout.split() == ["2.0", "False", "False"], ended.stderr
