"""GenerativeAdversarial: a generator and a discriminator in one container."""

from __future__ import annotations

from typing import Any, cast

from torch import nn

from neon.layers.container import Sequential
from neon.messages import received


class GenerativeAdversarial(Sequential):
    """Two networks in a row, for a `neon.models.GAN`: the discriminator judges what the generator makes of noise.

    Each is a Sequential, or a list of layers or a module to put in one, which is then called "Generator" or
    "Discriminator". By such names a MultiOptimizer gives each its own optimizer.
    """

    def __init__(self, generator: Any, discriminator: Any, name: str | None = None) -> None:
        if generator is discriminator:
            raise ValueError("A generator and a discriminator must be two networks. Received: one, twice.")
        made = _network("generator", generator), _network("discriminator", discriminator)
        super().__init__(made, name)

    @property
    def generator(self) -> Sequential:
        """What makes samples of noise."""
        return cast(Sequential, self.layers[0])

    @property
    def discriminator(self) -> Sequential:
        """What tells samples of data from those."""
        return cast(Sequential, self.layers[1])


def _network(role: str, given: Any) -> Sequential:
    if isinstance(given, Sequential):
        return given
    if not isinstance(given, (list, tuple, nn.Module)):
        raise TypeError(f"{role} must be a Sequential(layers, name={role.title()!r}). {received(role, given)}")
    return Sequential([given], role.title())
