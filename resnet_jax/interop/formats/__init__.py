"""File formats: one module each, which reads a stranger's file and writes one of ours."""

import zipfile
from collections.abc import Mapping

from resnet_jax.errors import InputError

ENTRY = "resnet_jax"
"""Name of our metadata in a file of any format, see `metadata`."""


def checked_members(
    archive: zipfile.ZipFile, file_size: int, library: str
) -> Mapping[str, zipfile.ZipInfo]:
    """Returns the members of an archive without compression, as PyTorch and Keras write them.

    Args:
      archive: The archive.
      file_size: Bytes of the file.
      library: The library that writes such archives, for messages.

    Raises:
      InputError: A member is compressed, encrypted, there twice or larger than the file.
    """
    members = {}
    spare = file_size
    for member in archive.infolist():
        name = member.filename
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            raise InputError(f"{name} is compressed or encrypted, as {library} writes none")
        spare -= member.file_size  # members that share bytes would have more than there are
        if member.compress_size != member.file_size or spare < 0:
            raise InputError(f"{name} claims to be larger than the file")
        if name in members:
            raise InputError(f"{name} is there twice")
        members[name] = member
    return members
