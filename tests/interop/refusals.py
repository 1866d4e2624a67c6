"""The check that a file is refused in a sentence, with little memory."""

import tracemalloc

import pytest

from resnet_jax import InputError
from resnet_jax.interop import load_pretrained


def refused(path, message, *, most=None):
    """Checks that a file is refused in one sentence, and little is allocated for it.

    Args:
      path: The file.
      message: Pattern of the sentence.
      most: Bytes that may be allocated; by default ten times those of the file, and 3 MB.
    """
    most = 10 * path.stat().st_size + 3e6 if most is None else most
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=message) as raised:
            load_pretrained(path)
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()
    assert str(raised.value).startswith(str(path))
    assert str(raised.value).isprintable()
