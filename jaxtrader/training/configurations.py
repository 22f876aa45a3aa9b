"""The configurations of a sweep: what can be swept, and a trainer for each choice of settings. Nothing is trained.

A list of values is swept, and any other value is the same for all. All configurations are scored at the same costs and
by the same facts of the market, since nobody can choose those. A policy that was trained at other costs pays these.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jaxtrader.agents.protocol import Agent
from jaxtrader.envs.env_settings import EnvSettings
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.evaluation.backtest import check_room
from jaxtrader.ledger.costs import LIMITS, CostRange, Costs
from jaxtrader.ledger.rules import Rules
from jaxtrader.market.market import Market
from jaxtrader.nearest import hint
from jaxtrader.setting_checks import setting
from jaxtrader.training.identity import as_json
from jaxtrader.training.train_settings import TrainSettings
from jaxtrader.training.trainer import Trainer


def _names(settings: type) -> tuple[str, ...]:
    return tuple(each.name for each in dataclasses.fields(settings))


CHOICES = ("rebalance_band", "rebalance", "max_leverage", "flat_at_session_end")  # rules that a trader chooses
FACTS = tuple(name for name in _names(Rules) if name not in CHOICES)  # the others, which are the market's or broker's
RATES = (*LIMITS, "rebates")
WHOLE = ("costs", "rules", "reward")  # settings of an environment that are objects
TRAINER = tuple(name for name in _names(Trainer) if name not in ("env", "agent", "valid", "env_params", "run_dir"))
# Seeds show what is luck within a configuration, so they are no choice. Devices change the last digits alone.
NOT_SWEPT = ("seed", "seeds", "seeds_at_once", "devices")
AS_THEY_ARE = ("about", "progress", "callbacks")  # settings that change no numbers, and may be lists themselves


@dataclass(frozen=True, eq=False)
class Configuration:
    """One choice of settings before its training.

    Attributes:
        settings: the swept ones, by name.
        trainer: trains it. It has a validation market, and no folder yet.
        test: bars that no choice may see. None where nothing is tested.
        changes: settings of `backtest` by which all configurations are scored alike.
        files: further files for its run folder: the text of each by its name.
    """

    settings: Mapping[str, Any]
    trainer: Trainer
    test: Market | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        env, valid = self.trainer.env, self.trainer.valid
        if not isinstance(env, TradingEnv) or not isinstance(valid, Market):
            raise ValueError("a sweep needs a TradingEnv, and a Market as valid, on which the best is chosen")
        for market in (valid, self.test):
            if market is not None:
                check_room(dataclasses.replace(env, market=market, **self.changes))


@dataclass(frozen=True, eq=False)
class SweepPlan:
    """All configurations of a sweep.

    Attributes:
        configurations: each choice of the swept settings.
        swept: the values of each swept setting, as plain data.
        fixed: the other settings that decide about the sweep, as plain data. A sweep is resumed only where `swept` and
            `fixed` are the same.
    """

    configurations: Sequence[Configuration]
    swept: Mapping[str, Any]
    fixed: Mapping[str, Any]


def plan_sweep(
    env: TradingEnv, agent: Agent, valid: Market | None, test: Market | None, settings: Mapping[str, Any]
) -> SweepPlan:
    """Check everything before anything is trained. The arguments and errors are those of `sweep`."""
    known = _known(agent)
    for name in settings:
        if name not in known:
            raise ValueError(
                f"{setting(name)} is no setting of the agent, environment, costs or training{hint(name, known)}"
            )
    lists = {name: _values(value) for name, value in settings.items() if name not in AS_THEY_ARE}
    swept = {name: values for name, values in lists.items() if values is not None}
    fixed = {name: value for name, value in settings.items() if name not in swept}
    check_swept(swept, known)
    env, agent, training = _with(env, agent, fixed)
    found = []
    for chosen in combinations(swept):
        try:
            own_env, own_agent, own_training = _with(env, agent, chosen)
            trainer = Trainer(own_env, own_agent, valid=valid, **training | own_training)
            changes = scored_alike(own_env.rules, env.rules, env.costs, chosen)
            found.append(Configuration(chosen, trainer, test, changes))
        except ValueError as error:
            named = ", ".join(setting(name, value) for name, value in chosen.items())
            raise ValueError(f"{named}: {error}") from error
    lengths = found[0].trainer
    decide = {name: getattr(lengths, name) for name in TRAINER if name in _names(TrainSettings) and name not in swept}
    return SweepPlan(found, plain(swept), plain(decide))


def check_swept(swept: Mapping[str, Sequence[Any]], known: Collection[str]) -> None:
    """Raise ValueError where there is nothing to sweep, or where a setting cannot be swept or has no values of its own.

    Args:
        swept: the values of each swept setting.
        known: names of the settings that can be swept.
    """
    if not swept:
        raise ValueError("there is nothing to sweep; give a list of values, as in `learning_rate=[1e-3, 3e-4]`")
    for name, values in swept.items():
        if name in NOT_SWEPT:
            raise ValueError(
                f"{setting(name)} cannot be swept: each configuration is trained with all seeds, on all devices"
            )
        if name not in known:
            raise ValueError(
                f"{setting(name)} cannot be swept; sweep a setting of the agent, the environment, rules or costs"
            )
        if not values:
            raise ValueError(f"{setting(name)} is an empty list; give the values to try, or leave it out")
        spelt = [as_json(float(value) if type(value) is int else value) for value in values]
        for i, text in enumerate(spelt):
            if text in spelt[:i]:
                raise ValueError(f"{setting(name)} has {text} twice; each value is trained once, so leave one out")


def combinations(swept: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Return each choice of one value of every setting. The last setting changes first."""
    return [dict(zip(swept, values, strict=True)) for values in itertools.product(*swept.values())]


def scored_alike(
    chosen: Rules, rules: Rules, costs: Costs | CostRange, swept: Collection[str]
) -> dict[str, Costs | CostRange | Rules]:
    """Return the settings of a backtest in which a configuration pays what all others pay.

    Args:
        chosen: The configuration's rules.
        rules, costs: The rules and costs of the sweep, without what is swept.
        swept: The names of the swept settings.
    """
    changes: dict[str, Costs | CostRange | Rules] = {}
    if {"costs", *RATES} & set(swept):
        changes["costs"] = costs
    facts = [name for name in FACTS if name in swept or "rules" in swept]
    if facts:
        changes["rules"] = chosen.replace(**{name: getattr(rules, name) for name in facts})
    return changes


def label(settings: Mapping[str, Any]) -> str:
    """Return settings and their values on one line."""
    return ", ".join(f"{name} {_short(value)}" for name, value in settings.items())


def plain(values: Any) -> Any:
    """Return values as JSON holds them. Another object becomes its text."""
    return json.loads(as_json(values))


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple | list):
        return f"({', '.join(map(_short, value))})"
    return str(value)


def _values(given: Any) -> list[Any] | None:
    """Return the values of a setting that is swept. None where it has one value."""
    if isinstance(given, np.ndarray) and given.ndim == 1:
        return given.tolist()
    return list(given) if isinstance(given, list | range) else None


def _known(agent: Agent) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*_of_agent(agent), *_names(EnvSettings), *WHOLE, *_names(Rules), *RATES, *TRAINER)))


def _of_agent(agent: Agent) -> tuple[str, ...]:
    return tuple(each.name for each in dataclasses.fields(agent)) if dataclasses.is_dataclass(agent) else ()


def _with(env: TradingEnv, agent: Agent, changes: Mapping[str, Any]) -> tuple[TradingEnv, Agent, dict[str, Any]]:
    """Return the environment and the agent with other settings, and the settings that belong to the Trainer."""
    of_agent = {name: value for name, value in changes.items() if name in _of_agent(agent)}
    rest = {name: value for name, value in changes.items() if name not in of_agent}
    if of_agent:
        agent = dataclasses.replace(agent, **of_agent)  # pyrefly: ignore[bad-specialization]
    of_env = {name: value for name, value in rest.items() if name in (*_names(EnvSettings), *WHOLE)}
    rates = {name: value for name, value in rest.items() if name in RATES}
    rules = {name: value for name, value in rest.items() if name in _names(Rules)}
    if rates:
        costs = of_env.get("costs", env.costs)
        if not isinstance(costs, Costs):
            raise ValueError(
                f"{setting(next(iter(rates)))} cannot be set in a range of costs; give `costs=[...]` instead"
            )
        of_env["costs"] = costs.replace(**rates)
    if rules:
        of_env["rules"] = of_env.get("rules", env.rules).replace(**rules)
    if of_env:
        env = dataclasses.replace(env, **of_env)
    return env, agent, {name: value for name, value in rest.items() if name in TRAINER}
