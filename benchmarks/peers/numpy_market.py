"""The market and the money rules of jaxtrader's TradingEnv for one asset, vectorised over accounts in plain NumPy.

What a peer trains on, so that a comparison is of trainers and not of environments: no loop over accounts, money in
float64, observations in float32. It needs NumPy alone and knows nothing of any trainer. `tests/test_peers.py` holds it
against `jaxtrader/ledger` step by step. Left out: fills other than the next open, NaN targets, `rebalance="on_change"`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

MAX_BARS_SINCE_FILL = 20
FLOOR = 1e-4  # equity at which the log reward stops falling
DUST = 1e-12
ACCOUNT_FEATURES = 4


@dataclass(frozen=True)
class MarketData:
    """Histories end to end on one time axis of T bars.

    Attributes:
        open: [T].
        close: [T].
        features: [T, F] float32, normalised.
        volatility: [T], deviation of the last 20 log returns.
        segments: [S, 3] history start, first decision, end (exclusive).
    """

    open: np.ndarray
    close: np.ndarray
    features: np.ndarray
    volatility: np.ndarray
    segments: np.ndarray

    @classmethod
    def load(cls, path: str | Path) -> MarketData:
        """Read an .npz with these five arrays."""
        with np.load(path) as stored:
            columns = {name: np.float64(stored[name]) for name in ("open", "close", "volatility")}
            return cls(**columns, features=np.float32(stored["features"]), segments=np.int64(stored["segments"]))


@dataclass(frozen=True)
class Settings:
    """What accounts trade under, with the names and meanings of TradingEnv's arguments.

    `positions` holds the exposures of the discrete actions, or is "continuous": an exposure in [-1, 1].
    """

    positions: tuple[float, ...] | Literal["continuous"] = (-1.0, 0.0, 1.0)
    fee: float = 1e-4
    slippage: float = 5e-4
    rebalance_band: float = 0.05
    ruin_level: float = 0.01
    episode_length: int = 256


@dataclass
class Accounts:
    """The state of `num` ledgers, each array `[num]`. See `Account` in jaxtrader's ledger."""

    cash: np.ndarray
    units: np.ndarray
    entry: np.ndarray
    target: np.ndarray
    bars_since_fill: np.ndarray
    equity: np.ndarray

    def open(self, which: np.ndarray, exposure: np.ndarray | float, price: np.ndarray | float) -> None:
        """Make the accounts at index `which` new: worth 1, holding `exposure` at `price` free of cost."""
        self.cash[which] = 1 - exposure
        self.units[which] = exposure / price
        self.entry[which] = np.where(exposure == 0, 0, price)
        self.target[which] = exposure
        self.bars_since_fill[which] = MAX_BARS_SINCE_FILL
        self.equity[which] = 1


@dataclass
class NumpyMarket:
    """`num_envs` accounts that trade side by side, each from its own bar, with auto-reset.

    After ruin (terminated) an account begins anew, flat, at the next bar of the same episode. At the time limit or the
    end of its history (truncated) it begins at a random bar with a random exposure.
    """

    data: MarketData
    settings: Settings
    num_envs: int
    seed: int = 0
    accounts: Accounts = field(init=False)
    cursor: np.ndarray = field(init=False)
    end: np.ndarray = field(init=False)
    time: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        first, end = self.data.segments[:, 1], self.data.segments[:, 2]
        self._room = np.maximum(end - 1 - first, 0)  # bars with one tradable bar ahead
        self._rooms = np.cumsum(self._room)
        self.accounts = Accounts(*np.zeros((6, self.num_envs)))
        self.cursor, self.end, self.time = np.zeros((3, self.num_envs), np.int64)
        self._choices = None if self.settings.positions == "continuous" else np.asarray(self.settings.positions)
        # A step is some 60 small array operations: what is constant is made once.
        self._vol_move = np.maximum(self.data.volatility, 1e-12) * math.sqrt(20)
        self._buy_cost = (1 + self.settings.slippage) * (1 + self.settings.fee) - 1
        self._sell_cost = 1 - (1 - self.settings.slippage) * (1 - self.settings.fee)

    @property
    def observation_size(self) -> int:
        """Length of one observation: the bar's features, then the account's."""
        return self.data.features.shape[1] + ACCOUNT_FEATURES

    def reset(self) -> np.ndarray:
        """Observations `[num_envs, observation_size]` of new episodes, with ages spread so that they don't all end at
        once.
        """
        self._begin(np.arange(self.num_envs))
        self.time = self.rng.integers(0, self.settings.episode_length, self.num_envs)
        return self.observe()

    def step(self, action: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Trade and mark over one bar.

        Args:
            action: [num_envs] index into the positions, or a target exposure in continuous mode.

        Returns:
            Observations after any restart, log rewards, terminated, truncated, and the observations before a restart
            (the same array as the first where nothing ended).
        """
        target = np.clip(action, -1, 1) if self._choices is None else self._choices[action]
        before = self.accounts.equity
        terminated = self._trade(np.asarray(target, np.float64))
        reward = np.log(np.maximum(self.accounts.equity, FLOOR) / np.maximum(before, FLOOR))
        self.cursor += 1
        self.time += 1
        truncated = (self.time >= self.settings.episode_length) | (self.cursor + 1 >= self.end)
        obs = final = self.observe()
        if terminated.any() or truncated.any():
            self.accounts.open(np.flatnonzero(terminated), 0.0, 1.0)
            self._begin(np.flatnonzero(truncated))
            obs = self.observe()
        return obs, reward, terminated, truncated, final

    def observe(self) -> np.ndarray:
        """[num_envs, F + 4] float32: the bar's features, exposure, last target, gain since entry, bars since a fill."""
        account, cursor = self.accounts, self.cursor
        price = self.data.close[cursor]
        features = self.data.features[cursor]
        market = features.shape[1]
        value = account.units * price
        gain = np.sign(account.units) * (price / np.where(account.entry > 0, account.entry, price) - 1)
        obs = np.empty((self.num_envs, market + ACCOUNT_FEATURES), np.float32)
        obs[:, :market] = features
        obs[:, market] = np.minimum(np.maximum(value / (account.cash + value), -2), 2)
        obs[:, market + 1] = account.target
        obs[:, market + 2] = np.minimum(np.maximum(gain / self._vol_move[cursor], -5), 5)
        obs[:, market + 3] = account.bars_since_fill / MAX_BARS_SINCE_FILL
        return obs

    def _trade(self, target: np.ndarray) -> np.ndarray:
        """Carry the accounts from close[cursor] to close[cursor + 1]. Returns where that was ruin."""
        account, settings = self.accounts, self.settings
        price, close = self.data.open[self.cursor + 1], self.data.close[self.cursor + 1]
        equity = account.cash + account.units * price
        ruined = equity <= settings.ruin_level
        order = target * equity / price - account.units
        size = np.abs(order) * price
        none = size <= DUST * equity
        if settings.rebalance_band > 0:
            none |= (size < settings.rebalance_band * equity) & (target != 0)
        order = np.where(none, 0, order)
        if ruined.any():
            order = np.where(ruined, -account.units, order)
        order, cut = self._cut_to_cash(order, price, equity, ruined)
        account.bars_since_fill = np.minimum(account.bars_since_fill + 1, MAX_BARS_SINCE_FILL)
        self._settle(order, price)
        flat = ((target == 0) & (order != 0) & ~((order > 0) & cut)) | ruined
        account.units[flat] = 0  # exactly: what a division leaves over must not be traded again
        account.entry[flat] = 0
        account.cash[cut & (order > 0)] = 0
        account.target = target
        account.equity = account.cash + account.units * close
        broke = ~ruined & (account.equity <= settings.ruin_level)
        if broke.any():
            self._settle(np.where(broke, -account.units, 0), close)
            account.equity = np.where(broke, account.cash, account.equity)
        return ruined | broke

    def _cut_to_cash(
        self, order: np.ndarray, price: np.ndarray, equity: np.ndarray, ruined: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Orders that cash can pay for, and where they were cut. A cut that leaves dust is no trade."""
        cash = self.accounts.cash
        pay = order * price * (1 + self._buy_cost)
        cut = (order > 0) & (pay > cash) & ~ruined
        order = np.where(cut, order * (np.maximum(cash, 0) / np.where(cut, pay, 1)), order)
        small = (np.abs(order) * price <= DUST * equity) & ~ruined
        return np.where(small, 0, order), cut

    def _settle(self, order: np.ndarray, price: np.ndarray) -> None:
        """BacktestResult fills at `price`, with their costs."""
        account = self.accounts
        before = account.units
        notional = order * price
        account.cash = account.cash + self._received(order, price)
        account.units = units = before + order
        average = (before * account.entry + notional) / np.where(units == 0, 1, units)
        kept = np.where(before * units > 0, account.entry, price)
        entry = np.where(units == 0, 0, np.where(before * order >= 0, average, kept))
        traded = order != 0
        account.entry = np.where(traded, entry, account.entry)
        account.bars_since_fill = np.where(traded, 0, account.bars_since_fill)

    def _received(self, order: np.ndarray, price: np.ndarray) -> np.ndarray:
        """Cash from signed orders, costs taken off."""
        return -order * price * np.where(order > 0, 1 + self._buy_cost, 1 - self._sell_cost)

    def _begin(self, which: np.ndarray) -> None:
        """New episodes for the accounts at index `which`: uniform over all bars with a tradable bar ahead."""
        if not len(which):
            return
        drawn = self.rng.integers(0, self._rooms[-1], len(which))
        segment = np.searchsorted(self._rooms, drawn, side="right")
        first, end = self.data.segments[segment, 1], self.data.segments[segment, 2]
        self.cursor[which] = first + drawn - (self._rooms - self._room)[segment]
        self.end[which] = end
        self.time[which] = 0
        if self._choices is None:
            exposure = self.rng.uniform(-1, 1, len(which))
        else:
            exposure = self.rng.choice(self._choices, len(which))
        self.accounts.open(which, exposure, self.data.close[self.cursor[which]])
