"""Encoders: the part of a network that reads bars, before it knows any account. They give one vector for each decision.

An encoder takes chunks of bars and answers for every bar that ends a whole window, from the bars of that window alone.
The reach of its layers adds up to the window exactly. So one call over a chunk gives the same numbers as its windows
one by one, and does the work that they share only once.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol, cast

import flax.linen as nn
from jax import Array
from jaxtyping import Float

from jaxtrader.agents.attention import Attention
from jaxtrader.agents.convolutions import TCN
from jaxtrader.agents.layers import windows_of
from jaxtrader.agents.own_encoder import Own, OwnEncoder, own
from jaxtrader.agents.recurrent import GRU, LRU

Kind = Literal["mlp", "tcn", "attention", "gru", "lru"]


class Encoder(Protocol):
    """What a network asks of its encoder. It is a Flax module.

    Attributes:
        layers: how many layers it has.
    """

    @property
    def layers(self) -> int:
        """The number of layers."""
        ...

    def output_width(self, inputs: int) -> int:
        """Return how many numbers it gives for a decision, from `inputs` numbers of each bar."""
        ...

    def activation_count(self, inputs: int, decisions: int) -> int:
        """Return roughly how many numbers it keeps for its backward pass, for one path of so many decisions."""
        ...

    def __call__(self, bars: Any) -> Any:
        """Return the outputs `[*b, bars - window + 1, output_width]` for chunks `[*b, bars, inputs]`."""
        ...


def known(encoder: Any) -> Kind | Own:
    """Return the name of an encoder, or the holder of a user's module. See `own` for errors."""
    return cast(Kind, encoder) if isinstance(encoder, str) else own(encoder)


def make_encoder(kind: Kind | Own, window: int, width: int, depth: int | None) -> Encoder:
    """Return the encoder of that name, or the user's own."""
    if isinstance(kind, Own):
        return OwnEncoder(window, kind)
    if kind == "mlp":
        return Windows(window)
    made = {"tcn": TCN, "attention": Attention, "gru": GRU, "lru": LRU}
    return made[kind](window, width, depth)


class Windows(nn.Module):
    """The windows themselves, flattened: the input of an MLP."""

    window: int

    @property
    def layers(self) -> int:
        """It has none."""
        return 0

    @nn.nowrap
    def output_width(self, inputs: int) -> int:
        """Return how many numbers it gives for a decision."""
        return self.window * inputs

    @nn.nowrap
    def activation_count(self, inputs: int, decisions: int) -> int:
        """Return how many numbers it keeps for the backward pass of the next layer."""
        return decisions * self.window * inputs

    def __call__(self, bars: Float[Array, "*b bars inputs"]) -> Float[Array, "*b decisions outputs"]:
        """Return each decision's bars side by side, oldest first."""
        if self.window == 1:
            return bars
        windows = windows_of(bars, self.window)
        return windows.reshape(*windows.shape[:-2], -1)
