"""A named network: a module and the fields that its name stands for."""

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from flax import linen as nn

from resnet_jax.errors import InputError, unknown
from resnet_jax.models.lowering import Lowering

NO_BATCH_NORM: Mapping[str, Any] = {
    "bn_momentum": 0.9,
    "bn_epsilon": 1e-5,
    "bn_group_size": None,
    "bn_axis_name": None,
}
"""Fixed fields of a variant without batch normalisation, of a module that can have it."""


@dataclasses.dataclass(frozen=True)
class Variant:
    """A module with some of its fields filled in.

    Attributes:
      module: The module's class.
      defaults: Values of fields that the name stands for; options may replace them.
      fixed: Values of fields that options may not replace (a plain network has no shortcuts).
      image_shape: Height, width and channels of the images that the network was designed for.
    """

    module: Callable[..., nn.Module]
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    image_shape: tuple[int, int, int] = (224, 224, 3)

    @property
    def options(self) -> Mapping[str, type | None]:
        """The fields that may be given, with the types that a config can hold.

        It is `object` for one of several types, and `None` where no config can hold the value.
        """
        reserved = {"parent", "name", "lowering", *self.fixed}
        return {f.name: _plain(f.type) for f in self._fields if f.name not in reserved}

    @property
    def _fields(self) -> Sequence[dataclasses.Field]:
        fields = dataclasses.fields(self.module)  # pyrefly: ignore
        return [field for field in fields if field.init]

    def build(self, name: str, *, lowering: Lowering = "plain", **options: Any) -> nn.Module:
        """Returns the module; refuses, for this name, options that it has not or that are fixed.

        A module without the field `lowering` has the plain form only.
        """
        known = {field.name for field in self._fields}
        form = {"lowering": lowering} if "lowering" in known else {}
        for option, value in options.items():
            if option in self.fixed and value != self.fixed[option]:
                raise InputError(f"{name} has no option {option!r}; a network of another name has")
            if option not in self.options and option not in self.fixed:
                raise unknown(f"option of {name}", option, self.options)
        return self.module(**{**self.defaults, **options, **self.fixed, **form})


def _plain(annotation: Any) -> type | None:
    origin = typing.get_origin(annotation)
    if origin in (types.UnionType, typing.Union):
        kinds = {_plain(a) for a in typing.get_args(annotation) if a is not types.NoneType}
        return kinds.pop() if len(kinds) == 1 else None if None in kinds else object
    if origin is Literal:
        return str
    if origin in (tuple, Sequence):
        return tuple
    return annotation if annotation in (bool, int, float, str) else None
