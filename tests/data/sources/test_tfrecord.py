import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_jax.data.sources.tfrecord import Damage, find_records, frame, unframe
from tests.data.sources.tfrecord_reference import record_bytes

RECORDS = [b"", b"a", b"\x00" * 40, bytes(range(256)) * 3]


def find(content, block=64):
    return find_records(lambda start, stop: content[start:stop], len(content), block).tolist()


def test_a_published_record():
    # What tf.io.TFRecordWriter writes for b"hello".
    content = bytes.fromhex("0500000000000000eab2043e68656c6c6fbb1f1c19")
    assert frame(b"hello") == content
    assert unframe(content) == b"hello"


@pytest.mark.parametrize("data", RECORDS)
def test_a_record_is_as_defined(data):
    assert frame(data) == record_bytes(data)
    assert unframe(frame(data)) == data


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 200).map(lambda length: b"x" * length), max_size=12),
    st.integers(12, 300),
)
def test_records_are_found_whatever_is_read_at_once(records, block):
    content = b"".join(map(record_bytes, records))
    starts = find(content, block)
    assert starts == [0, *itertools.accumulate(len(record) + 16 for record in records)]
    for record, (start, stop) in zip(records, itertools.pairwise(starts), strict=True):
        assert unframe(content[start:stop]) == record


def test_data_are_not_read():
    content = b"".join(map(record_bytes, [b"x" * 10_000] * 5))
    read = []

    def look(start, stop):
        read.append(stop - start)
        return content[start:stop]

    assert len(find_records(look, len(content), 32)) == 6
    assert sum(read) <= 5 * 32


def test_no_records():
    assert find(b"") == [0]


def test_every_truncation_is_found():
    content = b"".join(map(record_bytes, RECORDS))
    whole = set(find(content))
    for length in range(len(content)):
        if length in whole:
            continue  # a file that lacks whole records is found by their number
        with pytest.raises(Damage, match="ends within a record"):
            find(content[:length])


def test_every_flipped_byte_is_found():
    content = record_bytes(b"some data")
    for position, bit in itertools.product(range(len(content)), (0, 7)):
        changed = bytearray(content)
        changed[position] ^= 1 << bit
        with pytest.raises(Damage):
            unframe(bytes(changed))
        if position < 12:
            with pytest.raises(Damage):
                find(bytes(changed))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x1f\x8b" + b"gzip" * 20, "is no TFRecord, or a compressed one"),
        (
            record_bytes(b"abc") + b"garbage" * 9,
            "has at byte 19 a length that is not what was written",
        ),
        (record_bytes(b"abc") + record_bytes(b"abcdef")[:-5], "ends within a record, that of byte"),
        (record_bytes(b"abc") + b"\x00", "ends within a record, that of byte 19"),
    ],
)
def test_what_is_wrong_is_said(content, message):
    with pytest.raises(Damage) as error:
        find(content)
    assert str(error.value).startswith(message)


def test_a_file_that_shrinks_while_it_is_read():
    content = b"".join(map(record_bytes, [b"x" * 100] * 5))
    with pytest.raises(Damage, match="ends within a record"):
        find_records(lambda start, stop: content[:300][start:stop], len(content), 32)
