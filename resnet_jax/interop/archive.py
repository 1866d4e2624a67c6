"""Archives (zip) that are not compressed, as PyTorch and Keras write them."""

import zipfile
from collections.abc import Mapping

from resnet_jax.errors import InputError


def checked_members(
    archive: zipfile.ZipFile, file_size: int, library: str
) -> Mapping[str, zipfile.ZipInfo]:
    """Returns the members of an archive by name, which claim no more than there is.

    Args:
      archive: The archive.
      file_size: Bytes that it has in all.
      library: Who writes such, for the message.

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
