"""What a library calls the arrays of a family of networks, and how the family is recognised."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from resnet_jax.errors import InputError
from resnet_jax.interop.naming import DialectName, Place
from resnet_jax.interop.preprocessing import Json
from resnet_jax.models import (
    VGG,
    AlexNet,
    BNInception,
    GoogLeNet,
    LeNet5,
    PReLUNet,
    ResNet,
    ZFNet,
)

Network: TypeAlias = ResNet | AlexNet | ZFNet | VGG | GoogLeNet | BNInception | LeNet5 | PReLUNet
Shape: TypeAlias = tuple[int, ...]
Shapes: TypeAlias = Mapping[str, Shape]
Fields: TypeAlias = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Look:
    """The shapes of a library's arrays, by our names and as they are laid out here.

    Attributes:
      shapes: The arrays of the library.
      place: Where it has an array, by our name.
    """

    shapes: Shapes
    place: Callable[[str], Place | None]

    def shape(self, name: str) -> Shape | None:
        """Returns the shape of an array, None if it is not there."""
        there = self.place(name)
        if there is None or there.name not in self.shapes:
            return None
        return there.shape_here(self.shapes[there.name])

    def demanded(self, name: str, dimensions: int) -> Shape:
        """Returns the shape of an array that has to be there.

        Raises:
          InputError: It is not there, or has other dimensions.
        """
        shape = self.shape(name)
        if shape is None or len(shape) != dimensions:
            there = self.place(name)
            raise InputError(
                f"{name if there is None else there.name} is {shape or 'not there'}, and has to "
                f"have {dimensions} dimensions"
            )
        return shape


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """The networks of a family as a library has them.

    Attributes:
      sign: Name of an array that all of them have, for messages.
      is_spoken: Whether arrays with these names and shapes are such a network's, by a glance.
      fields: The fields of a network that its arrays show, of their names and shapes; raises
        `InputError` where they are no such network's.
      place: Where the library has an array of a network, of the network and our name; None if it
        has no place for it. Raises `InputError` where it has no such network.
      form: What its networks have of the fields that arrays do not show, unless they say otherwise.
      fill: What it always has beside a network, of the network and our name, where nothing else is
        known: a number, or None if it does without.
    """

    sign: str
    is_spoken: Callable[[Shapes], bool]
    fields: Callable[[Shapes], Fields]
    place: Callable[[Any, str], Place | None]
    form: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    fill: Callable[[Any, str], float | None] = lambda network, name: None


@dataclasses.dataclass(frozen=True)
class Family:
    """A class of networks.

    Attributes:
      module: The class.
      said: The fields that a file which was written here says, as its arrays do not show them, and
        whether a value found there may be one.
      channels: How many channels images have.
      vocabularies: Whose names the networks have.
      side: Of images that they take, in pixels.
    """

    module: Callable[..., Network]
    said: Mapping[str, Callable[[Json], bool]]
    channels: Callable[[Look], int]
    vocabularies: Mapping[DialectName, Vocabulary]
    side: int = 224

    @property
    def name(self) -> str:
        """The name of the class."""
        return getattr(self.module, "__name__", str(self.module))


def own_names(
    fields: Callable[[Look], Fields], form: Mapping[str, Any] | None = None
) -> Vocabulary:
    """Returns the vocabulary of our own names; files in it say of which family they are.

    Args:
      fields: The fields of a network that its arrays show.
      form: What the others are, unless a file says otherwise.
    """
    return Vocabulary(
        sign="params/...",
        is_spoken=lambda shapes: any(name.startswith("params/") for name in shapes),
        fields=lambda shapes: fields(Look(shapes, Place)),
        place=lambda network, name: Place(name),
        form=form or {},
    )


def channels_at(kernel: str) -> Callable[[Look], int]:
    """Returns how to tell the channels of images: by a kernel, and 3 where it has no such shape."""

    def channels(look: Look) -> int:
        match look.shape(kernel):
            case (_, _, inputs, _):
                return inputs
            case _:
                return 3

    return channels


def is_text(value: Json) -> bool:
    """Whether a value is a word, or None."""
    return value is None or isinstance(value, str)


def is_flag(value: Json) -> bool:
    """Whether a value is true or false."""
    return isinstance(value, bool)


def is_number(value: Json) -> bool:
    """Whether a value is a number that a field may have: none has to be negative or enormous."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1e6


def is_count(value: Json) -> bool:
    """Whether a value may be a number of units; a file of strangers decides on no more."""
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 2**20


def is_counts(value: Json) -> bool:
    """Whether a value may be a few numbers of units or layers."""
    return isinstance(value, list) and 1 <= len(value) <= 16 and all(map(is_count, value))
