"""Policies in plain Python on a market: functions, and models of other libraries with a method `predict`.

The loop over decisions runs on the host, where any code can decide. What a decision does to the account is the same
compiled step as in `rollout_policy`, so a result does not depend on who decides.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from jaxtrader.agents.gymnasium_form import GymnasiumForm
from jaxtrader.envs.actions import TOLERANCE
from jaxtrader.envs.episode import EnvAccount, EnvParams, Holdings, Rows, Trajectory, rows_ahead, run_decision
from jaxtrader.envs.observation import Observation
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.jax_settings import package_settings
from jaxtrader.ledger.rules import BRACKETS
from jaxtrader.setting_checks import check_unlabelled, setting

# From windows `[segment, W, A, F]`, accounts `[segment, A, K]`, rows of the market, and which segments still have a bar
# there, to actions for the environment.
Decide = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]
BLOCK = 1024  # decisions whose arrays are put together at once: a million small arrays take much memory


@runtime_checkable
class Model(Protocol):
    """A trained model of another library, such as one of Stable-Baselines3. Its `predict` takes a batch."""

    predict: Callable[..., Any]


def host_trajectory(env: TradingEnv, params: EnvParams, decide: Decide, decisions: int) -> Trajectory:
    """Return what `rollout_policy` returns, with decisions that are made in Python, one after another.

    Args:
        env: the environment.
        params: the parameters of `env` in float64, with the features that decisions see.
        decide: the function that decides. It is called once a decision, for all segments together.
        decisions: the number of decisions. A segment with fewer of them waits at its last bar.
    """
    features = np.asarray(params.arrays.features, np.float32)
    first, ends = np.asarray(env.market.first_decisions(env.window)), np.asarray(env.market.segments[:, 2])
    with package_settings(x64=True):
        account, seen, rows = _begin(params, decisions, env=env)
    kept: list[Trajectory] = []
    blocks: list[Trajectory] = []
    for number in range(decisions):
        asked = first + number * env.decision_every
        now = np.minimum(asked, ends - 1)
        windows = features[now[:, None] - np.arange(env.window)[::-1]]
        # Code of others runs under the caller's settings of JAX.
        action = decide(windows, np.asarray(seen), now, asked < ends)
        with package_settings(x64=True):
            account, seen, trajectory = _step(account, jnp.asarray(action), seen, rows, params, number, env=env)
            kept.append(trajectory)
        if len(kept) == BLOCK or number == decisions - 1:
            blocks.append(jax.tree.map(lambda *x: np.stack([np.asarray(each) for each in x]), *kept))
            kept = []
    return by_bar(jax.tree.map(lambda *x: np.concatenate(x), *blocks), env.decision_every)


def by_bar(trajectory: Trajectory, every: int) -> Trajectory:
    """A trajectory of decisions that have `every` bars each, as one of bars. Its `decision` stays one a decision."""
    if every == 1:
        return trajectory
    bars = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), trajectory.replace(decision=None))
    return bars.replace(decision=trajectory.decision)


@partial(jax.jit, static_argnames=("env", "decisions"))
def _begin(params: EnvParams, decisions: int, *, env: TradingEnv) -> tuple[EnvAccount, Array, Rows]:
    """Return flat accounts, what a decision sees of them, and the rows of all decisions."""
    first, last = params.arrays.first_decisions(env.window), params.arrays.segments[:, 2] - 1
    rows = rows_ahead(env, params, first, decisions, last)
    price = params.arrays.close[first]
    account = env.open_account(jnp.zeros_like(price), price, financing=params.has_financing)
    return account, _seen(env, account, rows, 0), rows


@partial(jax.jit, static_argnames="env")
def _step(
    account: EnvAccount,
    action: Array,
    seen: Array,
    rows: Rows,
    params: EnvParams,
    number: Int[Array, ""],
    *,
    env: TradingEnv,
) -> tuple[EnvAccount, Array, Trajectory]:
    """Return the accounts at the next decision, what that sees of them, and what this decision did."""
    row = jax.tree.map(lambda x: x[number], rows)
    account, trajectory = run_decision(env.move_function(params), account, action, row, env.decision_every)
    assert isinstance(trajectory.account, EnvAccount)
    kept = trajectory.replace(
        account=Holdings.of(trajectory.account), brackets=None, figures=None, decision=seen, reward=None
    )
    following = jnp.minimum(number + 1, len(rows.price) - 1)
    return account, _seen(env, account, rows, following), kept


def _seen(env: TradingEnv, account: EnvAccount, rows: Rows, number: Any) -> Float[Array, "segment A K"]:
    """What a decision sees of its account."""
    tradable = None if rows.tradable is None else rows.tradable[number]
    return env.account_features(account, rows.price[number], rows.volatility[number], tradable)


# --- who decides ---


def of_function(function: Callable[[Observation], Any], env: TradingEnv) -> Decide:
    """Return how a function decides: from one raw `Observation` to a target exposure, or one an asset. NaN holds."""
    limit = env.rules.max_leverage
    low = 0.0 if env.positions == "weights" else -limit

    def decide(windows: np.ndarray, accounts: np.ndarray, now: np.ndarray, live: np.ndarray) -> np.ndarray:
        targets = np.full((len(windows), env.assets), np.nan)
        for i in np.flatnonzero(live):
            given = function(Observation(windows[i], accounts[i]))
            check_unlabelled("targets", given)
            try:
                target = np.empty(0) if given is None else np.asarray(given, np.float64).reshape(-1)
            except (TypeError, ValueError):
                target = np.empty(0)
            time = np.datetime_as_string(env.market.times[now[i]], "m")
            if target.shape != (env.assets,):
                wanted = "a number" if env.assets == 1 else f"{env.assets} numbers"
                raise ValueError(f"at {time} the policy returned {given!r:.60}; return {wanted}, the target exposure")
            if not (np.isnan(target) | ((low <= target) & (target <= limit))).all():
                raise ValueError(
                    f"at {time} the policy returned {target.tolist()}; a target exposure is in [{low:g}, {limit:g}], "
                    "or NaN to hold; `rules=jt.Rules(max_leverage=...)` allows more"
                )
            if env.positions == "weights" and np.nansum(target) > 1 + TOLERANCE:
                raise ValueError(
                    f"at {time} the policy returned weights that sum to {np.nansum(target):g}; at most 1 can"
                )
            targets[i] = target
        return targets

    return decide


def of_model(model: Model, form: GymnasiumForm, env: TradingEnv) -> Decide:
    """Return how a model decides by `predict(observations)`, as those of Stable-Baselines3 do, in a batch of segments.

    Where `predict` takes them, it gets `deterministic=True`, and the `state` of a recurrent model with `episode_start`.
    """
    takes = inspect.signature(model.predict).parameters
    recurrent: dict[str, Any] = {"state": None, "episode_start": True}

    def decide(windows: np.ndarray, accounts: np.ndarray, now: np.ndarray, live: np.ndarray) -> np.ndarray:
        given = {"deterministic": True, **recurrent, "episode_start": np.full(len(windows), recurrent["episode_start"])}
        answer = model.predict(
            form.observation(windows, accounts), **{name: x for name, x in given.items() if name in takes}
        )
        action, recurrent["state"] = answer if isinstance(answer, tuple) else (answer, None)
        recurrent["episode_start"] = False
        if len(np.atleast_1d(action)) != len(windows):
            raise ValueError(
                f"the model predicts an action of shape {np.shape(action)} for {len(windows)} observations; its "
                "predict must take a batch"
            )
        return form.action(env, action)

    return decide


def with_exposures(env: TradingEnv) -> TradingEnv:
    """Return the environment with target exposures for actions, by the same rules.

    Raises ValueError where a bracket belongs to single positions.
    """
    if not isinstance(env.positions, tuple):
        return env
    for name in BRACKETS:
        if isinstance(getattr(env, name), tuple):
            raise ValueError(
                f"{setting(name, getattr(env, name))} is one for each position; a function needs one number for all"
            )
    # The margin is that of the positions: of long ones none is needed.
    rules = env.rules.replace(maintenance_margin=env.rules.margin)
    return dataclasses.replace(env, positions="continuous", rules=rules)
