"""How checks 3 to 5 train a small agent and judge it on held-out bars; what is checked is told in `learned.py`.

The trials are made for finding leaks, not for earning: long and short, so that a leak of either sign pays; a small
network that sees one bar; a short horizon, since what a leak gives away comes at once.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxtrader.agents.policy import load_policy
from jaxtrader.agents.ppo import PPOAgent
from jaxtrader.envs.costs import Costs
from jaxtrader.envs.ledger import Fills
from jaxtrader.envs.rewards import FLOOR
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.evaluation.backtest import backtest
from jaxtrader.evaluation.baselines import exposure_matched
from jaxtrader.evaluation.book import Book
from jaxtrader.evaluation.simulate import simulate
from jaxtrader.market.checks import DataError
from jaxtrader.market.market import Market
from jaxtrader.training.checks.returns import fill_to_fill
from jaxtrader.training.trainer import Trainer

FEWEST_TRAINED, FEWEST_JUDGED = 256, 128  # bars of one symbol; with fewer, only chance is measured
MOST_JUDGED = 20_000  # bars of a symbol; a perfect trader's equity must stay within float64
COST_SHARE = 0.1
SPARE_COLUMN = "the future, in check 4"  # 0 in the other trials: all have the same shapes and compile once


def _agent() -> PPOAgent:
    return PPOAgent(learning_rate=3e-3, gamma=0.9, gae_lambda=0.9, hidden=(32, 32))


@dataclasses.dataclass(frozen=True)
class Setting:
    """How the agents of the checks trade, learn and are judged.

    Attributes:
        positions: exposures to choose from.
        costs: what a fill costs; see `affordable`.
        fill: where decisions fill, see `Rules`, likewise `rebalance_band`.
        agent: the learner.
        num_envs, rollout_length, total_steps, seed: see `Trainer`.
        held_out: share of the calendar at its end on which the agent is judged.
    """

    positions: tuple[float, ...] = (-1.0, 0.0, 1.0)
    costs: Costs = dataclasses.field(default_factory=Costs)
    fill: Fills = "next_open"
    rebalance_band: float = 0.05
    agent: Any = dataclasses.field(default_factory=_agent)
    num_envs: int = 64
    rollout_length: int = 32
    total_steps: int = 600_000
    held_out: float = 0.3
    seed: int = 0

    def validate(self, market: Market) -> Setting:
        """Return self, or raise DataError or ValueError where the trials on this market could not be run."""
        train, _ = self.parts(market)
        self.trainer(train, run_dir="unused")
        return self

    def parts(self, market: Market) -> tuple[Market, Market]:
        """The bars to train on, and those to judge on, of the symbols that have enough of them."""
        parts = market.split(1 - self.held_out, self.held_out)
        wanted = (max(FEWEST_TRAINED, self.rollout_length + 1), FEWEST_JUDGED)
        room = [part.segments[:, 2] - part.first_cursors(1) for part in parts]
        if any(bars.max() < least for bars, least in zip(room, wanted, strict=True)):
            raise DataError(
                f"{market.source}: after a warm-up of {market.lookback - 1} bars for the features, the longest history "
                f"has {max(room[0].max(), 0)} bars to train on and {max(room[1].max(), 0)} to judge on; the checks "
                f"need {wanted[0]} and {wanted[1]}, so give more bars or features with a shorter look-back."
            )
        train, held = (_of_length(part, least) for part, least in zip(parts, wanted, strict=True))
        ends = np.minimum(held.segments[:, 2], held.first_cursors(1) + MOST_JUDGED)
        return train, dataclasses.replace(held, segments=np.column_stack([held.segments[:, :2], ends]))

    def trainer(self, train: Market, run_dir: str) -> Trainer:
        """The trainer of one trial. Raises ValueError where a setting is out of range."""
        env = TradingEnv(
            train,
            positions=self.positions,
            window=1,
            episode_length=4 * self.rollout_length,
            costs=self.affordable(train),
            fill=self.fill,
            rebalance_band=self.rebalance_band,
        )
        return Trainer(
            env,
            self.agent,
            num_envs=self.num_envs,
            rollout_length=self.rollout_length,
            total_steps=self.total_steps,
            eval_every=2**30,  # only at the end: nothing is selected
            updates_per_chunk=64,
            seed=self.seed,
            run_dir=run_dir,
            progress=False,
        )

    def affordable(self, market: Market) -> Costs:
        """The costs, scaled down where fee and slippage together exceed a tenth of the mean fill-to-fill move.

        Costs hide a leak where bars are short: on minute bars no one-bar signal pays for itself, but it would still
        spoil every result. So the agent must be able to afford what it may find.
        """
        moves = fill_to_fill(market, self.fill)
        rates = [float(np.asarray(rate or 0.0)) for rate in (self.costs.fee, self.costs.slippage)]
        most = COST_SHARE * float(np.nanmean(np.abs(moves)))
        share = min(1.0, most / sum(rates)) if sum(rates) else 1.0
        return Costs(fee=share * rates[0], slippage=share * rates[1])


def _of_length(market: Market, least: int) -> Market:
    """The market of the symbols with at least so many bars to trade."""
    kept = np.flatnonzero(market.segments[:, 2] - market.first_cursors(1) >= least)
    return dataclasses.replace(market, segments=market.segments[kept], symbols=tuple(market.symbols[i] for i in kept))


@dataclasses.dataclass(frozen=True, eq=False)
class Trial:
    """One training, judged.

    Attributes:
        excess: [N] log return of each held-out bar above buy-and-hold at the policy's mean exposure, each symbol
            matched to its own, mean over the symbols that trade at that time.
        times: [N] the bars of `excess`, in order.
        growth: mean log return a bar and symbol, with nothing taken off.
        held: the bars it was judged on.
        costs: that it paid.
    """

    excess: Float[np.ndarray, " bar"]
    times: np.ndarray
    growth: float
    held: Market
    costs: Costs


def attempt(market: Market, setting: Setting, spare: Float[np.ndarray, "time asset"] | None = None) -> Trial:
    """Train on the first bars of a market and judge the last policy, by its mode, on the held-out ones.

    Args:
        market: with the features to learn from.
        setting: how.
        spare: a further column, 0 without it.

    Raises KeyboardInterrupt where Ctrl-C ended the training: half a training is judged by nothing.
    """
    spare = np.zeros(market.close.shape) if spare is None else spare
    seen = np.concatenate([market.features, spare[..., None]], -1)
    names = (*market.feature_names, SPARE_COLUMN)
    train, held = setting.parts(dataclasses.replace(market, features=seen, feature_names=names))
    with tempfile.TemporaryDirectory() as folder:
        trainer = setting.trainer(train, folder)
        result = trainer.train()
        if result.interrupted:
            raise KeyboardInterrupt
        policy = load_policy(result.policy_path)
    book = backtest(policy, held)
    books = book.by_symbol or {held.symbols[0]: book}
    growth = {symbol: log_returns(one) for symbol, one in books.items()}
    above = [growth[symbol] - log_returns(exposure_matched(held, one)) for symbol, one in books.items()]
    times, excess = _mean_by_time([one.times for one in books.values()], above)
    return Trial(excess, times, float(np.concatenate(list(growth.values())).mean()), held, trainer.env.costs)


def foresight(trial: Trial, spare: Float[np.ndarray, "time asset"], setting: Setting) -> float:
    """Mean log return a bar and symbol of who knows the spare column: the best position for its sign at every bar."""
    grown = []
    for i, symbol in enumerate(trial.held.symbols):
        start, end = int(trial.held.first_cursors(1)[i]), int(trial.held.segments[i, 2])
        targets = np.where(spare[start:end] > 0, max(setting.positions), min(setting.positions))
        book = simulate(
            trial.held,
            targets,
            costs=trial.costs,
            fill=setting.fill,
            rebalance_band=setting.rebalance_band,
            start=start,
            symbol=symbol,
        )
        grown.append(log_returns(book))
    return float(np.concatenate(grown).mean())


def log_returns(book: Book) -> Float[np.ndarray, " bar"]:
    """Log return of each bar, the equity floored as a reward's is: it stays finite through ruin."""
    equity = np.maximum(np.concatenate([[book.initial], book.equity]), FLOOR)
    return np.diff(np.log(equity))


def t_statistic(values: Float[np.ndarray, " bar"]) -> float:
    """Mean over its standard error, for independent bars; 0 where nothing varies.

    What a position earns above its own mean exposure is hardly correlated over time, as returns are not, even where
    positions are held for long.
    """
    spread = float(values.std(ddof=1))
    return float(values.mean()) / spread * float(np.sqrt(values.size)) if spread > 0 else 0.0


def _mean_by_time(
    times: Sequence[np.ndarray], columns: Sequence[Float[np.ndarray, " bar"]]
) -> tuple[np.ndarray, Float[np.ndarray, " bar"]]:
    """Columns with times of their own, as one: all times, and the mean of those that have a row at each."""
    every, at = np.unique(np.concatenate(times), return_inverse=True)
    return every, np.bincount(at, np.concatenate(columns)) / np.bincount(at)
