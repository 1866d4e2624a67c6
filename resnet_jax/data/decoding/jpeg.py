"""Regions of JPEGs, decoded by libjpeg-turbo 3 through ctypes.

The pixels equal Pillow's bit for bit, because Pillow decodes with the same library and the same
transforms; Pillow itself decodes only whole images. The library comes with the package `turbojpeg`
or with the system. Without it, and for what this module does not take, Pillow decodes.
"""

import ctypes
import ctypes.util
import functools
import importlib.util
import threading
import weakref
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import UInt8

# The library's header promises these numbers.
_DECOMPRESS = 1
_AS_RGBX = 2
_RGB, _YCBCR, _GREY = 0, 1, 2


_STOP_ON_WARNING = 0
_HEADER = (4, 5, 6, 7, 8, 15)
"""The parameters subsampling, width, height, precision, colours, lossless."""

_BLOCK_WIDTHS = (8, 16, 16, 8, 8, 32, 8)
"""Width of the blocks that are decoded as one, in pixels, by the kind of subsampling."""

_REACH = 2
"""Pixels to the left and right that colours are interpolated from, where they are subsampled."""


class Header(NamedTuple):
    """The header of a JPEG: sizes in pixels; `block` is the width of what is decoded as one."""

    width: int
    height: int
    grey: bool
    block: int


class Region(NamedTuple):
    """A rectangle of whole pixels."""

    left: int
    upper: int
    right: int
    lower: int


class _Region(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_int) for name in ("x", "y", "width", "height"))


class _Scale(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_int) for name in ("numerator", "denominator"))


_Library: TypeAlias = tuple[ctypes.PyDLL, ctypes.CDLL]
"""The library, twice: the first keeps the interpreter's lock, the second releases it.

Where threads wait for the lock, releasing it takes longer than most calls.
"""


class JpegDecoder:
    """A decoder, for one thread."""

    def __init__(self, libraries: _Library) -> None:
        library, releasing = libraries
        handle = library.tj3Init(_DECOMPRESS)
        if not handle:
            raise MemoryError("libjpeg-turbo has no memory for a decoder")
        weakref.finalize(self, library.tj3Destroy, handle)
        library.tj3Set(handle, _STOP_ON_WARNING, 1)
        self._library = library
        self._decompress = releasing.tj3Decompress8
        self._handle = handle

    def header(self, file: bytes) -> Header | None:
        """Returns the header of a JPEG; None where Pillow has to judge.

        Taken are whole JPEGs in colour or grey, lossy, of 8 bits.
        """
        whole = file.startswith(b"\xff\xd8") and file.endswith(b"\xff\xd9")
        if not whole or b"\xff\xda" not in file:  # a scan: the library takes files without one
            return None
        if self._library.tj3DecompressHeader(self._handle, file, len(file)):
            return None
        subsampling, width, height, precision, colours, lossless = (
            self._library.tj3Get(self._handle, parameter) for parameter in _HEADER
        )
        usual = colours in (_RGB, _YCBCR, _GREY) and precision == 8 and not lossless
        if not usual or not 0 <= subsampling < len(_BLOCK_WIDTHS):
            return None
        return Header(width, height, colours == _GREY, _BLOCK_WIDTHS[subsampling])

    def decode(
        self, file: bytes, header: Header, factor: int, region: Region
    ) -> UInt8[np.ndarray, "height width 4"] | None:
        """Returns a region of the image reduced by 1, 2, 4 or 8; None where there is damage.

        `header` has just returned the header of this file. A pixel is red, green, blue (equal in
        grey images), and anything.
        """
        # Whole blocks, and more of them: the colours at their edges are not interpolated.
        block = header.block // factor
        width = -(-header.width // factor)
        left = max(0, (region.left - _REACH) // block * block)
        right = min(width, -(-(region.right + _REACH) // block) * block)
        height = region.lower - region.upper
        out = np.empty((height, right - left, 4), np.uint8)
        library, handle = self._library, self._handle
        wanted = _Region(left, region.upper, right - left, height)
        if (
            library.tj3SetScalingFactor(handle, _Scale(1, factor))
            or library.tj3SetCroppingRegion(handle, wanted)
            or self._decompress(handle, file, len(file), out.ctypes.data, out.strides[0], _AS_RGBX)
        ):
            return None
        return out[:, region.left - left : region.right - left]


def jpeg_decoder() -> JpegDecoder | None:
    """Returns this thread's decoder; None if the library is missing."""
    library = _library()
    if library is None:
        return None
    if not hasattr(_decoders, "own"):
        _decoders.own = JpegDecoder(library)
    return _decoders.own


_decoders = threading.local()


@functools.cache
def _library() -> _Library | None:
    for path in (_of_package(), ctypes.util.find_library("turbojpeg")):
        if path is None:
            continue
        try:
            library = ctypes.PyDLL(path), ctypes.CDLL(path)
            _declare(*library)
        except (OSError, AttributeError):  # of another processor; an older version
            continue
        return library
    return None


def _of_package() -> str | None:
    """Returns the file of the package's extension module, which exports the library's functions."""
    spec = importlib.util.find_spec("turbojpeg")
    origin = None if spec is None else spec.origin
    return None if origin is None or origin.endswith(".py") else origin


def _declare(library: ctypes.PyDLL, releasing: ctypes.CDLL) -> None:
    pointer, number, size = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
    library.tj3Init.restype = pointer
    library.tj3Init.argtypes = (number,)
    library.tj3Destroy.restype = None
    library.tj3Destroy.argtypes = (pointer,)
    library.tj3Get.argtypes = (pointer, number)
    library.tj3Set.argtypes = (pointer, number, number)
    library.tj3DecompressHeader.argtypes = (pointer, ctypes.c_char_p, size)
    library.tj3SetScalingFactor.argtypes = (pointer, _Scale)
    library.tj3SetCroppingRegion.argtypes = (pointer, _Region)
    releasing.tj3Decompress8.argtypes = (pointer, ctypes.c_char_p, size, pointer, number, number)
