"""`LiveState`: what a live account keeps from bar to bar, and its file.

It also goes on with another history, whose past prices are adjusted anew.
"""

from __future__ import annotations

import dataclasses
from os import PathLike
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrader import files
from jaxtrader.agents.policy import Policy
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.jax_settings import on_cpu, package_settings
from jaxtrader.ledger import costs as cost_rates
from jaxtrader.ledger.rules import BRACKETS, Rules
from jaxtrader.live import live_schema
from jaxtrader.live.decision import Decision
from jaxtrader.live.live_account import opened, rescaled
from jaxtrader.live.live_schema import KIND, VERSION, LiveFile
from jaxtrader.live.recent import RecentBars, up_to
from jaxtrader.live.rows import MarketRows
from jaxtrader.live.schedule import Schedule, moment, nanoseconds_of
from jaxtrader.live.step import StepState
from jaxtrader.market.bar_checks import format_duration
from jaxtrader.market.bars import Bars
from jaxtrader.market.features import Feature
from jaxtrader.schema import SchemaError

COMPARED, SAME = 20, 0.05  # bars whose prices are compared, and by how much their factors may differ
OTHER_POLICY = "resume with the policy that it was saved with"


@dataclasses.dataclass(frozen=True)
class LiveState:
    """What a live account keeps from bar to bar.

    Attributes:
        rows: the newest rows of the market.
        schedule: which times of bars are usual.
        step: the account at the last close, and the action in force.
        decision: the decision in force.
        age: bars since that decision.
    """

    rows: MarketRows
    schedule: Schedule
    step: StepState
    decision: Decision
    age: int = 0

    def save(self, path: str | PathLike[str], env: TradingEnv, fills: str) -> None:
        """Write the file of a live account."""
        account, action, tradable = self.step.account, self.step.action, self.step.tradable
        shares = self.decision.probabilities
        decision: dict[str, Any] = vars(self.decision) | {"time": nanoseconds_of(self.decision.time)}
        decision["probabilities"] = None if shares is None else [list(pair) for pair in shares.items()]
        content = {
            "version": VERSION,
            "env": env.to_dict(),
            "features": [each.name for each in self.rows.recent[0].features],
            "fills": fills,
            "rows": self.rows.to_plain(),
            "schedule": dict(vars(self.schedule)),
            "age": self.age,
            "account": [np.asarray(x) for x in jax.tree.leaves(account)],
            "action": np.asarray(action),
            "tradable": None if tradable is None else np.asarray(tradable),
            "decision": decision,
        }
        files.save(path, KIND, content)

    @classmethod
    def read(
        cls, path: str | PathLike[str], policy: Policy, specs: tuple[Feature, ...], reward: Any
    ) -> tuple[LiveState, TradingEnv, str]:
        """Return what `save` wrote: what is kept, the environment, and whether fills are assumed or reported.

        Raises:
            files.FileError: the file is not one of a live account, or is damaged.
            ValueError: it is of another policy.
        """
        stored, described = live_schema.read(path)
        if [each.name for each in specs] != stored.features:
            raise ValueError(
                f"{path} is the state of a policy with the features {', '.join(stored.features)}, and this one has "
                f"{', '.join(each.name for each in specs)}; {OTHER_POLICY}"
            )
        try:
            rows = MarketRows.from_plain(stored.rows, specs)
            env = _environment(path, policy, rows, described, reward)
            step, decision = _step(env, rows, stored), _decision(stored)
        except (SchemaError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise live_schema.damaged(path, error) from error
        return cls(rows, stored.schedule, step, decision, stored.age), env, stored.fills

    def with_history(
        self, path: Any, policy: Policy, histories: tuple[Bars, ...], specs: tuple[Feature, ...], env: TradingEnv
    ) -> LiveState:
        """Return what is kept with the rows of another history up to the same bar. Its prices may be adjusted anew.

        Raises ValueError where the history has no such bar, or is of other assets, columns, spacing or prices.
        """
        rows, schedule = self.rows, self.schedule
        symbols = tuple(bars.symbols[0] for bars in histories)
        if symbols != rows.symbols:
            raise ValueError(
                f"{path} is the state of {', '.join(rows.symbols)}, and the history is of {', '.join(symbols)}"
            )
        cut = tuple(up_to(bars, rows.time) for bars in histories)
        if max((bars.times[-1] for bars in cut if len(bars)), default=None) != rows.time:
            shown = schedule.shown(rows.time)
            raise ValueError(f"{path} has its last bar at {shown}, and the history has none then; give one that has")
        settings = {name: getattr(env, name) for name in ("rules", "costs", "reward", *BRACKETS)}
        renewed, market, _ = MarketRows.of(policy, cut, specs, settings)
        of_new = Schedule.of(market.times, market.tz)
        if of_new.bar != schedule.bar:
            before, now = (format_duration(np.timedelta64(each.bar, "ns")) for each in (schedule, of_new))
            raise ValueError(f"{path} is the state of bars one every {before}, and the history has one every {now}")
        if renewed.names != rows.names:
            raise ValueError(
                f"{path} is the state of a history with other columns; begin anew with policy.live(history)"
            )
        if any(_differ(each, other) for each, other in zip(rows.recent, renewed.recent, strict=True)):
            raise ValueError(
                f"{path} is the state of other prices than those of the history; begin anew with policy.live"
            )
        ratio = rows.column("close") / renewed.column("close")
        ratio = np.where(np.abs(ratio - 1) < 1e-9, 1.0, ratio)
        step = self.step.replace(account=rescaled(self.step.account, ratio))
        of_new = dataclasses.replace(of_new, run=schedule.run)
        return dataclasses.replace(self, rows=renewed, schedule=of_new, step=step)


def _environment(path: Any, policy: Policy, rows: MarketRows, stored: dict[str, Any], reward: Any) -> TradingEnv:
    """The environment of a stored state, over a stand-in for its market."""
    changes = {name: stored.get(name) for name in BRACKETS}
    changes |= {"rules": Rules(**stored["rules"]), "costs": cost_rates.from_dict(stored["costs"])}
    changes |= {} if reward is None else {"reward": reward}
    env = policy.environment(rows.stand_in(policy.features), **changes)
    other = [name for name, value in env.to_dict().items() if value != stored.get(name)]
    if other or (len(rows.symbols) > 1) != policy.portfolio:
        name = other[0] if other else "number of assets"
        raise ValueError(
            f"{path} is the state of a policy with another {name}; {OTHER_POLICY}, or begin anew with "
            "policy.live(history)"
        )
    return env


def _step(env: TradingEnv, rows: MarketRows, stored: LiveFile) -> StepState:
    """The account and the action of a state file. Raises SchemaError where they are of other rules."""
    fresh = opened(env, rows.column("close"), np.zeros(len(rows.symbols)), rows.names)
    leaves, structure = jax.tree.flatten(fresh)
    given = [*stored.account, stored.action, *([] if stored.tradable is None else [stored.tradable])]
    kinds = [[(np.shape(x), getattr(x, "dtype", np.dtype("O")).kind) for x in each] for each in (given, leaves)]
    if kinds[0] != kinds[1]:
        raise SchemaError("its account is one of other rules")
    with on_cpu(), package_settings(x64=True):
        return structure.unflatten([jnp.asarray(x, y.dtype) for x, y in zip(given, leaves, strict=True)])


def _decision(stored: LiveFile) -> Decision:
    shares = stored.decision.probabilities
    given: dict[str, Any] = {"time": moment(stored.decision.time)}
    given |= {"probabilities": None if shares is None else dict(shares)}
    return Decision(**vars(stored.decision) | given)


def _differ(before: RecentBars, now: RecentBars) -> bool:
    """Whether the last bars are of other prices, which no adjustment of the past, one factor for all, explains."""
    old, new = before.bars, now.bars
    _, at, to = np.intersect1d(old.times, new.times, return_indices=True)
    factors = np.log(old.close[at, 0] / new.close[to, 0])[-COMPARED:]
    return not factors.size or bool(np.ptp(factors) > SAME)
