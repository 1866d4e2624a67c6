"""A named network: a module and the fields that its name stands for."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from flax import linen as nn

from resnet_jax.errors import InputError, unknown


@dataclasses.dataclass(frozen=True)
class Variant:
    """A module with some of its fields filled in.

    Attributes:
      module: The module's class.
      defaults: Fields that the name stands for; they can be given otherwise.
      fixed: Fields without which the name would be a lie (a plain network has no shortcuts).
    """

    module: Callable[..., nn.Module]
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)

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
