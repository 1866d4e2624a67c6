"""A named network: a module and the fields that its name stands for."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from flax import linen as nn

from resnet_jax.errors import InputError, unknown

NO_BATCH_NORM: Mapping[str, Any] = {
    "bn_momentum": 0.9,
    "bn_epsilon": 1e-5,
    "bn_group_size": None,
    "bn_axis_name": None,
}
"""To be fixed in a variant without batch normalisation of a module that can have it."""


@dataclasses.dataclass(frozen=True)
class Variant:
    """A module with some of its fields filled in.

    Attributes:
      module: The module's class.
      defaults: Fields that the name stands for; they can be given otherwise.
      fixed: Fields without which the name would be a lie (a plain network has no shortcuts).
      image_shape: Height, width and channels of the images that the network was designed for.
    """

    module: Callable[..., nn.Module]
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    image_shape: tuple[int, int, int] = (224, 224, 3)

    @property
    def options(self) -> frozenset[str]:
        """The names of the fields that may be given."""
        fields = {f.name for f in dataclasses.fields(self.module) if f.init}  # pyrefly: ignore
        return frozenset(fields - {"parent", "name"} - self.fixed.keys())

    def build(self, name: str, **options: Any) -> nn.Module:
        """Returns the module; `name` is for the messages.

        Raises:
          InputError: An option is no field of the module, or is fixed.
        """
        for option, value in options.items():
            if option in self.fixed and value != self.fixed[option]:
                raise InputError(f"{name} has no option {option!r}; a network of another name has")
            if option not in self.options and option not in self.fixed:
                raise unknown(f"option of {name}", option, self.options)
        return self.module(**{**self.defaults, **options, **self.fixed})
