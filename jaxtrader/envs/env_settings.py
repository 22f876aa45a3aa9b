"""The settings of `TradingEnv`, without JAX: the command line derives its flags and their help from this class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxtrader.setting_checks import check_flag, check_whole, setting

ContinuousPositions = Literal["continuous", "weights"]
Positions = tuple[float, ...] | ContinuousPositions
BracketFractions = float | tuple[float | None, ...] | None
MAX_WINDOW = 100_000  # bars, far beyond what any encoder learns from


@dataclass(frozen=True, kw_only=True)
class EnvSettings:
    """What an agent may do, what it sees, and how long an episode is.

    Attributes:
        positions: The target exposures that the agent chooses from, such as -1,0,1. Or "continuous": any exposure of
            each asset, long or short, up to max_leverage. Or "weights": any weights from 0 that sum to at most 1, with
            the rest in cash.
        window: The number of bars that a decision sees. The last of them has just closed.
        episode_length: The number of bars after which an episode is truncated.
        decision_every: The number of bars between two decisions. The latest target holds in between.
        stop_loss: A position is closed within the bar at this loss from its entry price, such as 0.03. With discrete
            positions it may be one number for each of them. A closed position stays closed until its target has been 0
            or of the other sign, which weights never are.
        take_profit: A position is closed within the bar at this gain from its entry price.
        trailing_stop: A position is closed within the bar at this loss from its best price so far, such as 0.05. The
            return from that price is then among the account's features.
        random_start: Whether episodes start at a random exposure, so that every state of the account is seen. Without
            it they start flat. They also start flat in what the first bar closes.
    """

    positions: Positions = (-1.0, 0.0, 1.0)
    window: int = 32
    episode_length: int = 256
    decision_every: int = 1
    stop_loss: BracketFractions = None
    take_profit: BracketFractions = None
    random_start: bool = True
    trailing_stop: BracketFractions = None

    def __post_init__(self) -> None:
        for name in ("window", "episode_length", "decision_every"):
            object.__setattr__(self, name, check_whole(name, getattr(self, name), unit="bars"))
        if self.window > MAX_WINDOW:
            raise ValueError(
                f"{setting('window', self.window)} is above {MAX_WINDOW:,} bars; use coarser bars, or a shorter one"
            )
        if self.episode_length % self.decision_every:
            fewer = self.episode_length // self.decision_every * self.decision_every
            fitting = [setting("episode_length", n) for n in (fewer, fewer + self.decision_every) if n]
            raise ValueError(
                f"{setting('decision_every', self.decision_every)} does not divide "
                f"{setting('episode_length', self.episode_length)}, both in bars; use {' or '.join(fitting)}"
            )
        check_flag("random_start", self.random_start)

    def bars_to_trade(self, decisions: int, delay: int) -> int:
        """Return how many bars it takes to make so many decisions and to fill their orders, delayed by some bars."""
        return decisions * self.decision_every + delay
