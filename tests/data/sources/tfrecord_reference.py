"""TFRecord files written as their definition says, slowly, to hold the reader against."""

import json

from array_record.python.array_record_module import ArrayRecordReader
from etils import epath


def crc32c(data):
    """Returns the CRC-32C of bytes, bit by bit (RFC 3720, appendix B.4)."""
    state = 0xFFFFFFFF
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (0x82F63B78 if state & 1 else 0)
    return state ^ 0xFFFFFFFF


def masked(data):
    """Returns the checksum as it stands in the file, little-endian."""
    crc = crc32c(data)
    rotated = (crc >> 15 | crc << 17) % 2**32
    return ((rotated + 0xA282EAD8) % 2**32).to_bytes(4, "little")


def record_bytes(data):
    """Returns a record."""
    length = len(data).to_bytes(8, "little")
    return length + masked(length) + data + masked(data)


def write_tfrecord(path, records):
    """Writes a file of records."""
    epath.Path(path).write_bytes(b"".join(map(record_bytes, records)))


def read_array_record(path):
    """Returns all records of an ArrayRecord file."""
    return ArrayRecordReader(str(path)).read_all()


def turn_into_tfrecord(folder):
    """Turns a data set that tfds prepared as ArrayRecord into one prepared as TFRecord."""
    folder = epath.Path(folder)
    for file in sorted(folder.glob("*.array_record-*")):
        name = file.name.replace(".array_record-", ".tfrecord-")
        write_tfrecord(folder / name, read_array_record(file))
        file.unlink()
    info = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps({**info, "fileFormat": "tfrecord"}))
