"""Reads damaged images; a process of its own, which a crash or the lack of memory may end.

`python fuzz.py SEED COUNT LEDGER` prints, as JSON, how many of the images could not be decoded and
how long the slowest took, in seconds.
"""

import json
import resource
import struct
import sys
import time
import warnings

import numpy as np

from resnet_jax.data import BadRecords, DecodedImages, Example
from tests.data.pictures import encode, photo

MEMORY = 1 << 30  # bytes, beyond those in use at the start
SIZE = 32


def seeds():
    pixels = photo(90, 120)
    return [
        encode(pixels, "JPEG"),
        encode(pixels, "JPEG", progressive=True, quality=90),
        encode(pixels, "JPEG", restart_marker_blocks=4, subsampling="4:4:4"),
        encode(pixels[..., 0], "JPEG"),
        encode(pixels, "PNG"),
        encode(pixels[..., 0], "PNG"),
        encode(pixels[:40, :40], "GIF"),
        encode(pixels[:40, :40], "BMP"),
        encode(pixels, "WEBP"),
    ]


def damaged(data, rng):
    """Returns a file that is damaged in one of several ways."""
    file = bytearray(data)
    match rng.integers(6):
        case 0:
            del file[rng.integers(len(file)) :]
        case 1:
            for place in rng.integers(len(file), size=rng.integers(1, 30)):
                file[place] ^= 1 << rng.integers(8)
        case 2:  # in the header
            for place in rng.integers(min(len(file), 700), size=rng.integers(1, 4)):
                file[place] = rng.integers(256)
        case 3:
            first, last = np.sort(rng.integers(len(file), size=2))
            del file[first:last]
        case 4:
            huge = [int(side) for side in rng.choice([1, 4000, 9000, 30_000, 65_535], 2)]
            sof = max(file.find(b"\xff\xc0"), file.find(b"\xff\xc2"))
            if sof >= 0:
                file[sof + 5 : sof + 9] = struct.pack(">HH", *huge)
            elif file.startswith(b"\x89PNG"):
                file[16:24] = struct.pack(">II", *huge)
            else:
                file[6:10] = struct.pack("<HH", *huge)
        case 5:
            start = bytes(file[: rng.integers(20)])
            file = bytearray(start + rng.bytes(rng.integers(2000)))
    return bytes(file)


class Damaged:
    class_names = ("zero",)

    def __init__(self, seed, count):
        self._whole = seeds()
        self._seed = seed
        self._count = count

    def __len__(self):
        return self._count

    def __getitem__(self, index):
        rng = np.random.default_rng([self._seed, index])
        whole = self._whole[rng.integers(len(self._whole))]
        return Example(damaged(whole, rng), 0, f"damaged {index}")


class Whole:
    class_names = ("zero",)

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return Example(seeds()[0], 0, "whole")


class Replacing(BadRecords):
    """Enters bad images and has no substitutes: each image is read once."""

    def substitutes(self, index, examples):
        return iter(())


def main():
    seed, count, ledger = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    warnings.simplefilter("ignore")
    DecodedImages(Whole(), SIZE, workers=1).read(np.zeros(1, np.int64))
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, now + MEMORY))
    bad_records = Replacing("fuzz", 1.0, ledger=ledger)
    images = DecodedImages(Damaged(seed, count), SIZE, workers=1, bad_records=bad_records)
    refused, slowest = [], 0.0
    for index in range(count):
        begin = time.perf_counter()
        try:
            images.read(np.array([index]))
        except ValueError:
            refused.append(index)
        slowest = max(slowest, time.perf_counter() - begin)
    bad_records.sync()
    print(json.dumps({"refused": refused, "slowest": slowest}))


if __name__ == "__main__":
    main()
