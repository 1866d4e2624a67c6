"""Weights from the Hugging Face hub."""

import re

from etils import epath

from resnet_jax.errors import InputError

_ID = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Files of a repository with its arrays, the one that is preferred first."""

_CONFIGS = ["config.json", "preprocessor_config.json"]


def is_hub_id(text: str) -> bool:
    """Whether this looks like `owner/name` or `owner/name@revision`."""
    return _ID.fullmatch(text) is not None


def download(hub_id: str) -> epath.Path:
    """Returns a folder with the weights and the configs of a repository of the hub.

    Args:
      hub_id: `owner/name`, or `owner/name@revision` for a branch, tag or commit.

    Raises:
      InputError: The package `huggingface_hub` is not installed, or the repository cannot be had.
    """
    match = _ID.fullmatch(hub_id)
    if match is None:
        raise InputError(f"{hub_id!r} is no id of the hub, which is owner/name or owner/name@tag")
    try:
        import huggingface_hub  # an extra: most use files of their own
    except ImportError as error:
        raise InputError(
            f"{hub_id} is not a file or folder here, and to have it from the hub "
            "huggingface_hub has to be installed: pip install 'resnet_jax[hub]'"
        ) from error
    for weights in WEIGHTS:
        try:
            folder = epath.Path(
                huggingface_hub.snapshot_download(
                    match["repository"],
                    revision=match["revision"],
                    allow_patterns=[*_CONFIGS, weights],
                )
            )
        except (OSError, ValueError) as error:
            line = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            raise InputError(
                f"{hub_id} is not a file or folder here, and the hub does not give it: {line}"
            ) from error
        if (folder / weights).exists():
            break
    return folder
