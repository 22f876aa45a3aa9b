"""`Decision`: what a policy wants at the close of a bar."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from jaxtrader.market.bar_checks import format_time

Numbers = float | dict[str, float]  # of one asset, or by symbol


@dataclasses.dataclass(frozen=True, repr=False)
class Decision:
    """What a policy wants at the close of a bar. A portfolio has a mapping by symbol instead of a number.

    Attributes:
        target: the exposure, signed position value / equity, that the next order should reach. NaN holds the units.
        probabilities: the probability of each position, of an ensemble the mean over its members. None: it does not
            choose among positions.
        value: what it expects: the discounted sum of the rewards that follow.
        exposure: what the account holds at this close.
        time: the close, UTC.
    """

    target: Numbers
    probabilities: dict[float, float] | None
    value: float
    exposure: Numbers
    time: np.datetime64

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, as JSON takes it: a target that holds is None, and probabilities have text as keys."""

        def plain(number: Numbers) -> Any:
            if isinstance(number, dict):
                return {symbol: plain(each) for symbol, each in number.items()}
            return number if math.isfinite(number) else None

        shares = self.probabilities
        return {
            "time": f"{self.time.astype('datetime64[s]')}Z",
            "exposure": plain(self.exposure),
            "target": plain(self.target),
            "probabilities": None if shares is None else {f"{position:g}": share for position, share in shares.items()},
            "value": plain(self.value),
        }

    def __repr__(self) -> str:
        exposure, target = exposure_text(self.exposure), exposure_text(self.target)
        text = f"{format_time(self.time)} UTC, exposure {exposure}, target {target}"
        if self.probabilities is not None:
            shares = ", ".join(f"{share:.4g} of {position:g}" for position, share in self.probabilities.items())
            text += f", probabilities {shares}"
        return f"Decision({text}, value {self.value:.4g})"


def exposure_text(number: Numbers) -> str:
    """Return an exposure as a person reads it, of a portfolio by symbol. NaN holds the units: "as it is"."""
    if isinstance(number, dict):
        return ", ".join(f"{symbol} {exposure_text(each)}" for symbol, each in number.items())
    return "as it is" if math.isnan(number) else f"{round(number, 4) + 0.0:.4g}"
