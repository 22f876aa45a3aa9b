"""Which defaults do not overfit on real bars? Each candidate changes a few settings of `jaxtrader walk-forward`.

In each fold it trains three seeds on the past, and trades the mean of their targets on the bars that follow. The figure
is the excess over its own matched exposure. That is the return of a bar less that of holding the fold's mean exposure
at the same costs, as a mean over symbols. Its annual information ratio has a 95% interval from the stationary
bootstrap. "Must beat holding" is of the same trainings: where what was trained does no better than holding on
validation, the fold holds.

A choice of defaults must not see the bars by which it is shown. `--part choose` has every second symbol, the first one
among them, and bars before `--until` alone. `--part rest` has the other symbols, and tests on bars from then on.

Each candidate is kept in `results/defaults/` as soon as it is done, and is not trained again.

    python benchmarks/defaults.py [--quick] [--data FILE_OR_FOLDER] [--tz ZONE] [--label close|open] [--repair clip]
        [--part choose|rest|all] [--until DAY] [--folds N] [--seeds N] [--steps N] [--candidates NAME ...]
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from machine import RESULTS, arguments, commit, parsed, report

import jaxtrader as jt
from jaxtrader.agents.ensemble import Ensemble
from jaxtrader.agents.holding import holding
from jaxtrader.agents.policy import Policy
from jaxtrader.agents.policy_loading import load_policy
from jaxtrader.agents.ppo_settings import PPOSettings
from jaxtrader.cli import inputs
from jaxtrader.cli.command_settings import Source
from jaxtrader.cli.settings import of, resolved
from jaxtrader.evaluation.backtest import backtest
from jaxtrader.evaluation.baselines import exposure_matched, of_each_symbol
from jaxtrader.evaluation.bootstrap import sharpe_interval
from jaxtrader.evaluation.proof import prove
from jaxtrader.evaluation.result import BacktestResult
from jaxtrader.evaluation.verdict import lead
from jaxtrader.ledger.cost_rates import CostRates
from jaxtrader.market.folds import Fold, walk_forward_folds
from jaxtrader.training.walk_forward import plan_folds

SLOW = ("volatility_60", "log_return_252", "drawdown_252")
# Settings as the command line has them, and those of this file, which are in OWN.
CANDIDATES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "mean of the distribution": {"expected": True},
    "slow features": {"features": SLOW},
    "volatility features": {"features": ("volatility_20", "volatility_60")},
    "weight decay 1": {"weight_decay": 1.0},
    "costs x 5": {"dearer": 5.0},
    "decision_every 21": {"decision_every": 21},
    "rebalance_band 0.2": {"rebalance_band": 0.2},
    "hidden 4": {"hidden": (4,)},
    "risk_aversion 20": {"risk_aversion": 20.0},
}
Pair = tuple[BacktestResult, BacktestResult]
"""A result, and that of the account that holds its mean exposure."""
OWN = {"expected": False, "weight_decay": 0.0, "dearer": 1.0}


class DecayedPPO(jt.PPOAgent):
    """PPO with decoupled weight decay (Loshchilov and Hutter, 2019)."""

    weight_decay: float = 0.0

    def _optimizer(self) -> optax.GradientTransformation:
        return optax.chain(super()._optimizer(), optax.add_decayed_weights(self.weight_decay))


class Expected(Ensemble):
    """Members trade the mean of their distribution, and not the most likely position."""

    def act(self, state: Any, context: Any, account: Any, key: Any, deterministic: bool = False) -> Any:
        """Return the mean over members of the exposure that each expects of itself."""

        def member(one: Any, seen: Any) -> Any:
            distribution, value = self.member._head(one, one.params, seen, account)
            return jax.nn.softmax(distribution.logits), value

        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *state)
        shares, value = jax.vmap(member, in_axes=(0, account.ndim - 2))(stacked, context)
        return (shares @ jnp.asarray(self.positions, jnp.float32)).mean(0)[..., None], {"value": value.mean(0)}


@dataclasses.dataclass(frozen=True, eq=False)
class ExpectedPolicy(Policy):
    """A policy that acts by `Expected`."""

    @property
    def acting_agent(self) -> Expected:
        """The ensemble, acting by `Expected`."""
        agent = super().acting_agent
        assert isinstance(agent, Ensemble)
        return Expected(agent.member, agent.positions)


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is trained: seeds, steps of each training, and folds."""

    seeds: int
    steps: int
    folds: int


def folds_of(market: jt.Market, part: str, until: str, count: int) -> tuple[Fold, ...]:
    """The folds of a part, see the top of this file."""
    if part == "choose":
        market = market.split(until)[0]
    if part != "rest":
        return walk_forward_folds(market, count)
    late = market.split(until)[1]
    times = np.unique(np.concatenate([late.times[start:end] for _, start, end in late.segments]))
    begins = [times[rows[0]] for rows in np.array_split(np.arange(len(times)), count)]
    return walk_forward_folds(market, test=[pd.Timestamp(begin).to_pydatetime() for begin in begins])


def excess(result: BacktestResult, matched: BacktestResult) -> pd.Series:
    """The return of each bar less that of the matched account, as a mean over the symbols that trade there."""
    pairs = [(result, matched)]
    if result.by_symbol:
        pairs = [(one, matched.by_symbol[symbol]) for symbol, one in result.by_symbol.items()]
    columns = [
        pd.Series(own.excess_returns - other.excess_returns, own.to_frame().index, name=i)
        for i, (own, other) in enumerate(pairs)
    ]
    return pd.concat(columns, axis=1).mean(axis=1)


def judged(policy: Policy, market: jt.Market, costs: jt.Costs) -> Pair:
    """A policy's account on a market, and the account that holds its mean exposure."""
    result = backtest(policy, market, costs=costs)
    return result, of_each_symbol(exposure_matched, market, result)


def compared(result: BacktestResult, matched: BacktestResult) -> list[float]:
    """The difference of the Sharpe ratios, and its 95% interval."""
    found = lead(result, matched)
    return [found.value, found.low, found.high]


def measure(settings: dict[str, Any], market: jt.Market, folds: Sequence[Fold], size: Size) -> dict[str, Any]:
    """Train and test a candidate in all folds."""
    own = {**OWN, **{name: value for name, value in settings.items() if name in OWN}}
    values = resolved("walk-forward", {name: value for name, value in settings.items() if name not in OWN})
    costs = jt.Costs(**of(CostRates, values))
    rates = {name: own["dearer"] * rate for name in ("fee", "slippage") if (rate := getattr(costs, name)) is not None}
    env = dataclasses.replace(inputs.environment(values, market), costs=costs.replace(**rates))
    agent = jt.PPOAgent(**of(PPOSettings, values))
    if own["weight_decay"]:
        agent = DecayedPPO(**vars(agent), weight_decay=own["weight_decay"])
    training = {name: values[name] for name in ("eval_every", "num_envs", "rollout_length")}
    plans = plan_folds(env, agent, folds, progress=False, total_steps=size.steps, seeds=size.seeds, **training)
    tested = [test(plan, costs, own["expected"]) for plan in plans]
    periods = tested[-1].result.periods_per_year
    return {
        **summary([(fold.result, fold.matched) for fold in tested], periods),
        "single_seeds": [
            ratio(pd.concat([excess(*pair) for pair in pairs]), periods)[0]
            for pairs in zip(*(fold.singles for fold in tested), strict=True)
        ],
        "sharpe_difference": statistics.mean(compared(fold.result, fold.matched)[0] for fold in tested),
        "mean_exposure": statistics.mean(float(fold.result.metrics["mean_exposure"]) for fold in tested),
        "proven": summary([fold.held_if_unproven for fold in tested], periods)
        | {"folds": sum(x.about["is_better"] for x in tested)},
        "folds": [fold.about for fold in tested],
        "settings": values,
    }


@dataclasses.dataclass(frozen=True)
class Tested:
    """What a fold's training did on its test.

    Attributes:
        result, matched: of the mean of the seeds.
        singles: of each seed.
        held_if_unproven: of what holds where the training did not beat holding on validation.
        about: for the file.
    """

    result: BacktestResult
    matched: BacktestResult
    singles: list[Pair]
    held_if_unproven: Pair
    about: dict[str, Any]


def test(plan: Any, costs: jt.Costs, expected: bool) -> Tested:
    """Train a fold, and trade its test."""
    with tempfile.TemporaryDirectory() as folder:
        done = dataclasses.replace(plan.trainer, run_dir=Path(folder) / "run").train()
        policy = trained = load_policy(done.policy_path)
        members = [load_policy(one.policy_path) for one in done.members or (done,)]
    if expected:
        policy = ExpectedPolicy(policy.agent, policy.state, policy.about)
    future = plan.fold.test
    pair, on_valid = judged(policy, future, costs), judged(policy, plan.trainer.valid, costs)
    shown = prove(trained, plan.trainer.valid, plan.trainer.env.market)
    held_if_unproven = pair if shown.is_better else judged(holding(trained, shown.exposure)[0], future, costs)
    periods = pair[0].periods_per_year
    about = {
        "is_better": shown.is_better,
        "begins": str(future.times[future.segments[:, 1]].min())[:10],
        "valid": compared(*on_valid),
        "test": compared(*pair),
        "ir": ratio(excess(*pair), periods),
        "valid_ir": ratio(excess(*on_valid), periods),
    }
    return Tested(*pair, [judged(member, future, costs) for member in members], held_if_unproven, about)


def summary(pairs: Sequence[Pair], periods: float) -> dict[str, Any]:
    """The excess over all folds, and the turnover a year."""
    series = pd.concat([excess(*pair) for pair in pairs])
    return {
        "information_ratio": ratio(series, periods),
        "excess_a_year": float(series.mean() * periods),
        "turnover": statistics.mean(float(result.turnover.sum()) / result.years for result, _ in pairs),
    }


def ratio(series: pd.Series, periods: float) -> list[float]:
    """The annual information ratio of an excess, and its 95% interval. All 0 where nothing differs."""
    values = series.to_numpy()
    if not np.any(np.abs(values) > 1e-12):
        return [0.0, 0.0, 0.0]
    estimate = sharpe_interval(values)
    return [float(x * np.sqrt(periods)) for x in (estimate.estimate, estimate.low, estimate.high)]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--data", help="price files; default the bundled stocks")
    parser.add_argument("--tz")
    parser.add_argument("--label", default="close")
    parser.add_argument("--repair")
    parser.add_argument("--part", choices=("choose", "rest", "all"), default="all")
    parser.add_argument("--until", default="2010-01-01", help="where the bars end that a choice may see")
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=500_000, help="of each training")
    parser.add_argument("--candidates", nargs="+", choices=CANDIDATES, default=list(CANDIDATES), help="default all")
    given = parsed(parser)
    names, size = given.candidates, Size(given.seeds, given.steps, given.folds)
    if given.quick:
        names, size = names[:1], Size(1, 20_000, 1)
    source = Source(tz=given.tz, label=given.label, repair=given.repair)
    histories = inputs.read_bars(given.data, source)
    if given.part != "all" and len(histories) > 1:
        histories = histories[(0 if given.part == "choose" else 1) :: 2]
    data = "stocks" if given.data is None else Path(given.data).stem
    folder = RESULTS / "defaults"
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in names:
        settings = CANDIDATES[name]
        about = json.dumps([data, given.part, given.until, dataclasses.astuple(size), settings])
        path = folder / f"{data}-{given.part}-{hashlib.sha256(about.encode()).hexdigest()[:12]}.json"
        if not path.exists() or given.quick:
            market = inputs.market_of(histories, source, settings.get("features"))
            began = time.process_time()
            found = measure(settings, market, folds_of(market, given.part, given.until, size.folds), size)
            found |= {"candidate": name, "seconds": time.process_time() - began, **commit()}
            path.write_text(json.dumps(found, indent=1, default=str) + "\n")
        rows.append(row_of(name, json.loads(path.read_text())))
        print(*rows[-1], sep=" | ", flush=True)
    columns = [
        *("candidate", "information ratio", "95%", "single seeds", "excess a year", "Sharpe difference"),
        *("turnover", "mean exposure", "must beat holding: folds traded", "its information ratio", "its 95%"),
        *("its excess a year", "its turnover", "s"),
    ]
    work = (
        f"{data}, part {given.part}, {len(histories)} symbols, {size.folds} folds, {size.seeds} seeds, "
        f"{size.steps:,} steps each; excess is over the fold's mean exposure held"
    )
    report("defaults" if given.quick else f"defaults_{data}_{given.part}", columns, rows, {"work": work}, given.quick)


def row_of(name: str, found: dict[str, Any]) -> list[Any]:
    """A row of the table."""
    middle, low, high = found["information_ratio"]
    proven = found["proven"]
    its, its_low, its_high = proven["information_ratio"]
    return [
        name,
        f"{middle:+.2f}",
        f"{low:+.2f} to {high:+.2f}",
        ", ".join(f"{one:+.2f}" for one in found["single_seeds"]),
        f"{found['excess_a_year']:+.2%}",
        f"{found['sharpe_difference']:+.2f}",
        f"{found['turnover']:.2f}",
        f"{found['mean_exposure']:.2f}",
        f"{proven['folds']} of {len(found['folds'])}",
        f"{its:+.2f}",
        f"{its_low:+.2f} to {its_high:+.2f}",
        f"{proven['excess_a_year']:+.2%}",
        f"{proven['turnover']:.2f}",
        f"{found['seconds']:.0f}",
    ]


if __name__ == "__main__":
    main()
