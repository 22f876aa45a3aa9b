"""From settings in one dict to the arguments of `TradingEnv` and `simulate`: fields of `Rules` go into one `Rules`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from jaxtrader.envs.episode import EnvAccount, EnvParams, rows_ahead
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.ledger.account import open_account
from jaxtrader.ledger.bar import Bar
from jaxtrader.ledger.rules import Rules

_opened = jax.jit(open_account, static_argnames=("rules", "brackets", "financing"))

NAMES = {field.name for field in dataclasses.fields(Rules)}


def env_settings(settings: Mapping[str, Any], **defaults: Any) -> dict[str, Any]:
    """Keyword arguments of `TradingEnv`. `defaults` are rules that the settings may override."""
    rules = defaults | {name: value for name, value in settings.items() if name in NAMES}
    rest = {name: value for name, value in settings.items() if name not in NAMES}
    return {**rest, "rules": Rules(**rules)} if rules else rest


def run_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of `simulate`, which has no band unless one is given."""
    return env_settings(settings)


def bars_after(env: TradingEnv, cursor: Any, params: EnvParams) -> Bar:
    """The bars from close[cursor] to the next decision's, as `TradingEnv.advance` takes them."""
    return jax.tree.map(lambda x: x[0], rows_ahead(env, params, cursor, 1).bars)


def env_account(*args: Any, **settings: Any) -> EnvAccount:
    """`ledger.open_account` as an environment takes it."""
    return EnvAccount(**vars(_opened(*args, **settings)))


def with_settings(env: TradingEnv, settings: Mapping[str, Any]) -> TradingEnv:
    """The environment with other settings, those of its rules among them."""
    rules = {name: value for name, value in settings.items() if name in NAMES}
    rest = {name: value for name, value in settings.items() if name not in NAMES}
    return dataclasses.replace(env, **rest, rules=env.rules.replace(**rules))
