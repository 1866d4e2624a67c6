"""Checks of fields and images; each refuses a value with an `InputError`."""

from collections.abc import Sequence

from flax import linen as nn
from jaxtyping import Array, Float

from resnet_jax.errors import InputError


def one_of(field: str, value: object, choices: Sequence[object]) -> None:
    """Refuses a field whose value is not one of `choices`."""
    if value not in choices:
        wanted = ", ".join(map(repr, choices))
        raise InputError(f"{field} is {value!r}; it must be one of {wanted}")


def at_least_one(module: nn.Module, *fields: str) -> None:
    """Refuses fields below one, and sequences that are empty or have a number below one."""
    for field in fields:
        value = getattr(module, field)
        if isinstance(value, Sequence):
            if not value or min(value) < 1:
                raise InputError(f"{field} is {value}; it needs numbers, each of them at least 1")
        elif value < 1:
            raise InputError(f"{field} is {value}; it must be at least 1")


def length(field: str, value: Sequence[int], expected: int) -> None:
    """Refuses a sequence of another length."""
    if len(value) != expected:
        raise InputError(f"{field} is {value}; it must have {expected} numbers")


def share(field: str, value: float) -> None:
    """Refuses a share of units to drop that is not in [0, 1)."""
    if not 0 <= value < 1:
        raise InputError(f"{field} is {value}; it must be in [0, 1)")


def statistics_group(value: object) -> None:
    """Refuses a `bn_group_size` that is not a positive int, "global" or `None`."""
    if value is True or not (value in (None, "global") or (isinstance(value, int) and value > 0)):
        raise InputError(
            f"bn_group_size is {value!r}; it must be a positive number of images, 'global' or None"
        )


def multiple_of_8(field: str, value: int) -> None:
    """Refuses a width that the filters of an inception network cannot be in proportion to."""
    if value % 8:
        raise InputError(f"{field} is {value}; it must be a multiple of 8")


def at_least_pixels(network: str, images: Float[Array, "n h w c"], pixels: int) -> None:
    """Refuses images with a side shorter than `pixels`, which leave no maps after the poolings."""
    _, height, width, _ = images.shape
    if min(height, width) < pixels:
        raise InputError(
            f"{network} needs images of at least {pixels}x{pixels} pixels; "
            f"these are {height}x{width}"
        )
