"""Images for tests, and folders of them."""

import io
import os
import pathlib

import numpy as np
from PIL import Image


def photo(height, width, seed=0):
    """Returns smooth colours, uint8 [height, width, 3], as JPEGs are made for."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def encode(pixels, name="PNG", **options):
    """Returns the bytes of an image file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, name, **options)
    return file.getvalue()


def write_folder(root, splits, size=(40, 30)):
    """Writes `root/<split>/<class>/<number>.jpg`, and some as `.PNG`, that look like their class.

    Args:
      root: The folder.
      splits: For each split its classes and how many images each has.
      size: Height and width of the images.
    """
    number = 0
    for split, classes in splits.items():
        for name, count in classes.items():
            folder = pathlib.Path(root) / split / name
            folder.mkdir(parents=True)
            hue = 40 + 50 * (sum(name.encode()) % 4)
            for _ in range(count):
                number += 1
                pixels = photo(*size, seed=number) // 4 + np.uint8(hue // 2)
                pixels[..., hue % 3] //= 2
                png = number % 5 == 0
                content = encode(pixels, "PNG" if png else "JPEG")
                (folder / f"{number:04}.{'PNG' if png else 'jpg'}").write_bytes(content)


def settle(root, seconds=60):
    """Makes all folders look as if nothing had changed for a while."""
    for folder, _, _ in os.walk(root):
        changed = os.stat(folder).st_mtime_ns - seconds * 10**9
        os.utime(folder, ns=(changed, changed))
