"""The account of a live policy: its beginning, a fill that the user reports, and past prices adjusted anew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxtrader.envs.episode import EnvAccount
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.jax_settings import on_cpu, package_settings
from jaxtrader.ledger.account import BY_BRACKET, REASONS, without_rest
from jaxtrader.ledger.costs import Costs
from jaxtrader.ledger.rules import Rules
from jaxtrader.ledger.settlement import settle
from jaxtrader.live.step import StepState, action_type
from jaxtrader.setting_checks import setting

BY_SYMBOL = "give a mapping by symbol, such as {%r: ...}"


def opened(env: TradingEnv, close: np.ndarray, exposures: np.ndarray, names: tuple[str, ...]) -> StepState:
    """An account that holds these exposures, with a decision that holds."""
    financing = env.costs.has_financing or "funding" in names
    with on_cpu(), package_settings(x64=True):
        account = env.open_account(jnp.asarray(exposures), jnp.asarray(close), financing=financing)
        action = jnp.zeros(() if isinstance(env.positions, tuple) else close.shape, action_type(env))
        return StepState(account, action, jnp.ones(len(close), bool) if "present" in names else None)


def exposures_of(env: TradingEnv, account: Any, symbols: tuple[str, ...]) -> np.ndarray:
    """The exposures with which the account begins."""
    if account is None:
        return np.zeros(len(symbols))
    if isinstance(account, Mapping):
        unknown = [symbol for symbol in account if symbol not in symbols]
        if unknown:
            raise ValueError(f"`account` names {unknown[0]!r}, and the symbols are {', '.join(symbols)}")
        given = [account.get(symbol, 0.0) for symbol in symbols]
    elif len(symbols) > 1:
        raise ValueError(
            f"{setting('account', account)} is one number for {len(symbols)} assets; {BY_SYMBOL % symbols[0]}"
        )
    else:
        given = [account]
    try:
        exposures = np.asarray(given, np.float64)
    except (TypeError, ValueError):
        raise ValueError(
            f"{setting('account', account)} is no exposure; give a number such as 0.5, or one by symbol"
        ) from None
    most = 2 * env.rules.max_leverage
    if exposures.ndim != 1 or not np.abs(exposures).sum() <= most:
        raise ValueError(
            f"`account` of {', '.join(map(str, given))} is no exposure; give position value / equity, 0.5 is one half, "
            f"at most {most:g} in all"
        )
    return exposures


def filled(account: EnvAccount, at: int, units: float, price: float, fee: float, reason: str) -> EnvAccount:
    """The account after a fill of one asset."""
    with on_cpu(), package_settings(x64=True):
        return _filled(account, at, units, price, fee, reason)


def rescaled(account: EnvAccount, ratio: np.ndarray) -> EnvAccount:
    """The account after all past prices were divided by a ratio [A]: it holds as many units as are worth the same."""
    with on_cpu(), package_settings(x64=True):
        best = None if account.best is None else account.best / ratio
        return account.replace(units=account.units * ratio, entry=account.entry / ratio, best=best)


def _filled(account: Any, at: int, units: float, price: float, fee: float, reason: str) -> Any:
    chosen = jnp.arange(account.units.shape[-1]) == at
    order, number = jnp.where(chosen, units, 0.0), REASONS.index(reason)
    prices = jnp.where(chosen, price, 1.0)
    order = without_rest(account, order, prices, account.equity)  # what closes a position leaves no rounding error
    no_costs: Any = Costs(fee=None, slippage=None)
    bar: Any = None  # which only impact reads
    # The price is what was paid.
    after, _ = settle(account, order, prices, account.equity, bar, no_costs, Rules(), number)
    after = after.replace(
        cash=after.cash - fee,
        # The next bar counts one more, and the fill is of that bar.
        bars_since_fill=jnp.where(order != 0, -1, after.bars_since_fill),
    )
    if after.stopped is not None and number in BY_BRACKET:
        side = jnp.sign(-order).astype(jnp.int8)
        after = after.replace(stopped=jnp.where(chosen & (order != 0), side, after.stopped).astype(jnp.int8))
    return after
