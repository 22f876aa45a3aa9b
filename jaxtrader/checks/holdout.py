"""How checks 3 to 5 train a small agent and judge it on held-out bars. `learned.py` says what they check.

The agents are to find leaks, not to earn. Positions are long and short, so that a leak of either sign pays. The network
is small and sees one bar. The horizon is short, since a leak pays at once.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxtrader.agents.policy_loading import load_policy
from jaxtrader.agents.ppo import PPOAgent
from jaxtrader.agents.protocol import MarketAgent
from jaxtrader.checks.returns import fill_to_fill
from jaxtrader.envs.rewards import LogReturn
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.evaluation.backtest import backtest
from jaxtrader.evaluation.baselines import exposure_matched
from jaxtrader.evaluation.result import BacktestResult
from jaxtrader.evaluation.simulate import simulate
from jaxtrader.jax_settings import on_cpu, package_settings
from jaxtrader.ledger.costs import Costs
from jaxtrader.ledger.rules import Rules, check_rules
from jaxtrader.market.errors import DataError
from jaxtrader.market.market import Market
from jaxtrader.setting_checks import check_number, check_type, check_whole, setting
from jaxtrader.training.train_settings import check_seed
from jaxtrader.training.trainer import Trainer

MIN_TRAIN_BARS, MIN_TEST_BARS = 256, 128  # of one symbol. With fewer, only chance is measured.
MAX_TEST_BARS = 20_000  # of one symbol. The equity of a perfect trader must stay within float64.
MAX_COST_SHARE = 0.1  # of the mean move from fill to fill
FUTURE_COLUMN = "the future, in check 4"  # 0 in the other checks, so that all have the same shapes and compile once


def _agent() -> PPOAgent:
    return PPOAgent(learning_rate=3e-3, gamma=0.9, gae_lambda=0.9, hidden=(32, 32))


@dataclasses.dataclass(frozen=True)
class CheckSettings:
    """How the agents of the checks trade, learn and are judged.

    Attributes:
        positions: exposures to choose from.
        costs: costs of a fill, see `affordable_costs`.
        rules: where decisions fill, and the other rules of the ledger.
        agent: the learner.
        num_envs, rollout_length, total_steps, seed: settings of the training, see `TrainSettings`.
        holdout: share of the calendar, at its end, on which the agent is judged.

    Example:
        >>> jt.checks.CheckSettings(positions=(0.0, 1.0), total_steps=100_000).holdout
        0.3
    """

    positions: tuple[float, ...] = (-1.0, 0.0, 1.0)
    costs: Costs = dataclasses.field(default_factory=Costs)
    rules: Rules = dataclasses.field(default_factory=Rules)
    agent: MarketAgent = dataclasses.field(default_factory=_agent)
    # Less than `TrainSettings` has: up to five agents are trained, and each has an easy question to answer.
    num_envs: int = 64
    rollout_length: int = 32
    total_steps: int = 600_000
    holdout: float = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        check_seed(self.seed)
        check_number("holdout", self.holdout)
        if not 0 < self.holdout < 1:
            raise ValueError(
                f"{setting('holdout', self.holdout)} must be between 0 and 1: it is a share of the calendar"
            )
        check_type("CheckSettings", self.costs, Costs, "make them with `Costs(...)`")
        check_rules(self.rules)
        check_whole("rollout_length", self.rollout_length)

    def validate(self, market: Market) -> CheckSettings:
        """Return self. Raises DataError or ValueError where no agent can be trained and judged on this market."""
        train, _ = self.split(market)
        self.trainer(self.environment(train), run_dir="unused")
        return self

    def split(self, market: Market) -> tuple[Market, Market]:
        """Return the bars to train on and the bars to judge on, of the symbols that have enough of them."""
        parts = market.split(1 - self.holdout, self.holdout)
        needed = (max(MIN_TRAIN_BARS, self.rollout_length + 1), MIN_TEST_BARS)
        longest = [max(_known_bars(part).max(), 0) for part in parts]
        if any(bars < least for bars, least in zip(longest, needed, strict=True)):
            raise DataError(
                f"{market.source}: after a warm-up of {market.lookback - 1} bars for the features, the longest history "
                f"has {longest[0]} bars to train on and {longest[1]} to judge on; the checks need {needed[0]} and "
                f"{needed[1]}, so give more bars or features with a shorter look-back"
            )
        train, test = (_keep_long(part, least) for part, least in zip(parts, needed, strict=True))
        ends = np.minimum(test.segments[:, 2], test.first_decisions(1) + MAX_TEST_BARS)
        return train, dataclasses.replace(test, segments=np.column_stack([test.segments[:, :2], ends]))

    def environment(self, train: Market) -> TradingEnv:
        """Return the environment of a training. Raises ValueError where a setting is out of range."""
        return TradingEnv(
            train,
            positions=self.positions,
            window=1,
            episode_length=4 * self.rollout_length,
            costs=self.affordable_costs(train),
            rules=self.rules,
        )

    def trainer(self, env: TradingEnv, run_dir: str) -> Trainer:
        """Return the trainer of a training. Raises ValueError where a setting is out of range."""
        return Trainer(
            env,
            self.agent,
            num_envs=self.num_envs,
            rollout_length=self.rollout_length,
            total_steps=self.total_steps,
            eval_every=2**30,  # never: the last policy is judged
            updates_per_chunk=64,
            seed=self.seed,
            run_dir=run_dir,
            progress=False,
        )

    def affordable_costs(self, market: Market) -> Costs:
        """Return the costs, scaled down where fee and slippage exceed a tenth of the mean move from fill to fill.

        Costs hide a leak where bars are short. On minute bars no signal of one bar pays for itself, but a leak would
        still spoil every result. So the agent must be able to afford what it may find. A maker's fee is scaled by the
        same factor. All other rates stay as they are.
        """
        if named := self.costs.columns:
            name, column = next(iter(named.items()))
            raise ValueError(f"{setting(name, column)} names a column, and the checks need a number; give its mean")
        moves = fill_to_fill(market, self.rules.fill)
        fee, slippage = (float(np.asarray(rate or 0.0)) for rate in (self.costs.fee, self.costs.slippage))
        limit, asked = MAX_COST_SHARE * float(np.nanmean(np.abs(moves))), fee + slippage
        scale = min(1.0, limit / asked) if asked > 0 else 1.0
        maker = None if self.costs.maker_fee is None else scale * np.asarray(self.costs.maker_fee)
        return self.costs.replace(fee=scale * fee, slippage=scale * slippage, maker_fee=maker)


def _known_bars(market: Market) -> np.ndarray:
    """Return the number of bars of each segment whose features are known."""
    return market.segments[:, 2] - market.first_decisions(1)


def _keep_long(market: Market, least: int) -> Market:
    """Return the market of the symbols with at least so many bars to trade."""
    kept = np.flatnonzero(_known_bars(market) >= least)
    return market.keep(kept)


@dataclasses.dataclass(frozen=True, eq=False)
class HoldoutResult:
    """What one trained agent earns on held-out bars.

    Attributes:
        excess: log return of each bar above buy-and-hold at the policy's mean exposure. Each symbol has its own mean
            exposure. It is the mean over the symbols that trade at that time.
        times: the times of `excess`, in order.
        growth: mean log return a bar and symbol, with nothing taken off.
        test: the held-out market.
        costs: the costs that were paid.
        rules: the rules of the training.
    """

    excess: Float[np.ndarray, " bar"]
    times: np.ndarray
    growth: float
    test: Market
    costs: Costs
    rules: Rules


def train_and_judge(
    market: Market, settings: CheckSettings, future: Float[np.ndarray, "time asset"] | None = None
) -> HoldoutResult:
    """Train on the first bars of a market, and judge the last policy's most likely actions on the held-out bars.

    Args:
        market: the bars, with the features to learn from.
        settings: how to train and judge.
        future: a further feature, for check 4. Without it that column is 0.

    Raises:
        KeyboardInterrupt: Ctrl-C ended the training. Half a training is not judged.
    """
    future = np.zeros(market.close.shape) if future is None else future
    features = np.concatenate([market.features, future[..., None]], -1)
    names = (*market.feature_names, FUTURE_COLUMN)
    train, test = settings.split(dataclasses.replace(market, features=features, feature_names=names))
    env = settings.environment(train)
    with tempfile.TemporaryDirectory() as folder:
        result = settings.trainer(env, folder).train()
        if result.interrupted:
            raise KeyboardInterrupt
        policy = load_policy(result.policy_path)
    judged = backtest(policy, test)
    results = judged.by_symbol or {test.symbols[0]: judged}
    growth = {symbol: log_returns(one) for symbol, one in results.items()}
    above = [growth[symbol] - log_returns(exposure_matched(test, one)) for symbol, one in results.items()]
    times, excess = _mean_by_time([one.times for one in results.values()], above)
    assert isinstance(env.costs, Costs)
    return HoldoutResult(excess, times, float(np.concatenate(list(growth.values())).mean()), test, env.costs, env.rules)


def foresight_growth(judged: HoldoutResult, future: Float[np.ndarray, "time asset"], settings: CheckSettings) -> float:
    """Return the mean log return a bar and symbol of the best position for the sign of `future` at every bar.

    The rules and the costs are those of the training.
    """
    returns = []
    for i, symbol in enumerate(judged.test.symbols):
        start, end = int(judged.test.first_decisions(1)[i]), int(judged.test.segments[i, 2])
        targets = np.where(future[start:end] > 0, max(settings.positions), min(settings.positions))
        result = simulate(judged.test, targets, costs=judged.costs, rules=judged.rules, start=start, symbol=symbol)
        returns.append(log_returns(result))
    return float(np.concatenate(returns).mean())


def log_returns(result: BacktestResult) -> Float[np.ndarray, " bar"]:
    """Return the log return of each bar. It is the reward of that name, so it stays finite through ruin."""
    before = np.concatenate([[result.initial], result.equity[:-1]])
    with package_settings(x64=True), on_cpu():
        return np.asarray(LogReturn()(jnp.asarray(before), jnp.asarray(result.equity)))


def t_statistic(values: Float[np.ndarray, " bar"]) -> float:
    """Return the mean divided by its standard error, for independent bars. It is 0 where nothing varies.

    What a position earns above its own mean exposure is hardly correlated over time, since returns are not. That holds
    for long positions too.
    """
    spread = float(values.std(ddof=1))
    return float(values.mean()) / spread * float(np.sqrt(values.size)) if spread > 0 else 0.0


def _mean_by_time(
    times: Sequence[np.ndarray], columns: Sequence[Float[np.ndarray, " bar"]]
) -> tuple[np.ndarray, Float[np.ndarray, " bar"]]:
    """Return all times in order, and the mean of the columns that have a row at each."""
    stamps, at = np.unique(np.concatenate(times), return_inverse=True)
    return stamps, np.bincount(at, np.concatenate(columns)) / np.bincount(at)
