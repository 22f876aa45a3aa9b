"""Which features does a policy use? Each feature is moved in time by itself, and the policy trades again.

A feature that the decisions do not need can be moved without any change. The loss of Sharpe ratio is the feature's
permutation importance (Breiman, 2001, https://doi.org/10.1023/A:1010933404324, and for any model Fisher, Rudin and
Dominici, 2019, https://jmlr.org/papers/v20/18-760.html). Shuffled bars would destroy the slow movement of most
features, so that a window would show what no market shows. A rotation keeps the distribution and the autocorrelation of
the feature, and breaks what connects it with the prices and with the other features.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from jaxtrader import compilation
from jaxtrader.agents.policy import Policy
from jaxtrader.agents.policy_loading import load_policy
from jaxtrader.envs.episode import EnvParams, Holdings
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.evaluation.backtest import backtest, most_decisions, prepared_exactly, rollout_policy
from jaxtrader.evaluation.path_totals import total_sharpe
from jaxtrader.jax_settings import package_settings
from jaxtrader.market.lengths import round_length
from jaxtrader.market.market import Market
from jaxtrader.setting_checks import setting

if TYPE_CHECKING:
    import pandas as pd

NONE = -1  # stands for no feature: the policy as it is
NUMBERS_AT_ONCE = 1 << 26  # held for all rotations that are traded side by side: about 500 MB


@dataclasses.dataclass(frozen=True)
class Importance:
    """What each feature is worth to a policy on some bars.

    Attributes:
        features: their names, in the policy's order.
        sharpe: the Sharpe ratio of the policy over cash, of a year, or of the whole period where that is shorter than
            a year.
        lost: `[feature, repeat]` that ratio less the one with the feature rotated, by another offset in each repeat.
            Below 0 the policy did better without what the feature tells.
    """

    features: tuple[str, ...]
    sharpe: float
    lost: Float[np.ndarray, "feature repeat"]

    @classmethod
    def of(cls, several: Sequence[Importance]) -> Importance:
        """Return one importance of several, such as those of folds: the mean ratio, and the losses of all."""
        ratios, lost = [one.sharpe for one in several], [one.lost for one in several]
        return cls(several[0].features, float(np.mean(ratios)), np.concatenate(lost, axis=1))

    @property
    def mean(self) -> Float[np.ndarray, " feature"]:
        """The mean loss of Sharpe ratio over the repeats."""
        return self.lost.mean(axis=1)

    @property
    def spread(self) -> Float[np.ndarray, " feature"]:
        """The standard deviation of the loss over the repeats."""
        return self.lost.std(axis=1, ddof=1)

    def to_frame(self) -> pd.DataFrame:
        """One row for each feature, the most important first: mean loss of Sharpe ratio, and its spread."""
        import pandas as pd

        frame = pd.DataFrame({"importance": self.mean, "spread": self.spread}, index=pd.Index(self.features))
        return frame.sort_values("importance", ascending=False, kind="stable")


@package_settings()
def permutation_importance(
    policy: Policy | str | PathLike[str],
    market: Market,
    *,
    repeats: int = 10,
    most_bars: int | None = None,
    seed: int = 0,
    **changes: Any,
) -> Importance:
    """Measure the Sharpe ratio that a policy loses when one feature is rotated in time.

    The rotations divide the bars evenly, with a random part, so that none is short. In each repeat all histories and
    assets rotate by the same share of their bars, which keeps what they have in common. Windows see the rotated feature
    at all their bars. Assets of a portfolio rotate over the bars at which they are listed. Features that resemble each
    other share their importance, since one stands in for the other. Use bars that the policy was not trained on, such
    as those of validation: on its training bars it also uses what it has learnt by heart.

    Args:
        policy: a `Policy` or the path of its file.
        market: bars with the features that the policy knows, as in `backtest`.
        repeats: rotations of each feature, 2 or more.
        most_bars: how many of the last bars of each history are traded. None trades all.
        seed: the seed of the offsets.
        changes: the changes of `backtest`.

    Raises:
        ValueError: fewer than 2 repeats, or what `backtest` refuses.
    """
    if repeats < 2:
        raise ValueError(f"{setting('repeats', repeats)} must be 2 or more, since their spread is told")
    policy = policy if isinstance(policy, Policy) else load_policy(policy)
    if most_bars is not None:
        market = market_end(market, most_bars)
    result = backtest(policy, market, **changes)
    env = policy.environment(market, **changes)
    shares = (1 + np.arange(repeats) + np.random.default_rng(seed).uniform(-0.5, 0.5, repeats)) / (repeats + 1)
    count = len(market.feature_names)
    members = list(result.accounts.values())
    found = [
        result.sharpe_scale * total_sharpe(members, equities)
        for equities in _equities(policy, env, np.repeat(np.arange(count), repeats), np.tile(shares, count))
    ]
    alone, rotated = found
    lost = np.zeros(len(rotated))
    np.subtract(alone, rotated, out=lost, where=alone != rotated)  # two lost accounts are alike
    return Importance(tuple(market.feature_names), float(alone[0]), lost.reshape(count, repeats))


def market_end(market: Market, bars: int) -> Market:
    """The market whose segments are at most their last `bars` bars."""
    segments = market.segments.copy()
    segments[:, 1] = np.maximum(segments[:, 1], segments[:, 2] - bars)
    return dataclasses.replace(market, segments=segments)


def _equities(
    policy: Policy,
    env: TradingEnv,
    feature: Int[np.ndarray, " variant"],
    shares: Float[np.ndarray, " variant"],
) -> tuple[list[Float[np.ndarray, "variant bar"]], list[Float[np.ndarray, "variant bar"]]]:
    """The equity of each member, at its bars: of the policy itself, and with each feature rotated.

    Variants are traded side by side, some at once. A matrix product may round a row by its place among the others. So
    the policy itself is traded at each place too, and what a rotation does not change is the same to the bit.
    """
    market, decisions = env.market, round_length(most_decisions(env))
    first = market.first_decisions(env.window)
    with package_settings(x64=True):
        agent, state = policy.acting_agent, policy.state_for(market.close.shape[1])
        params = prepared_exactly(agent, state, env)
        rows = len(params.arrays.close)
        at_once = min(len(feature), max(1, NUMBERS_AT_ONCE // _numbers(agent, state, params, env, decisions)))
        # The last block is filled with the first variants, so that its shape is that of the others.
        padded = np.resize(np.arange(len(feature)), -(-len(feature) // at_once) * at_once).reshape(-1, at_once)

        def traded(block: Int[np.ndarray, " variant"], which: Int[np.ndarray, " variant"]) -> list[np.ndarray]:
            order = _orders(market, first - env.window + 1, shares[block], rows)
            held = _variants(agent, state, params, order, which, env=env, decisions=decisions)
            held = jax.tree.map(np.asarray, held)
            closes = [market.close[begin:end] for begin, end in zip(first, market.segments[:, 2], strict=True)]
            return [
                jax.tree.map(lambda x, i=i, close=close: x[:, : len(close), i], held).value(close)
                for i, close in enumerate(closes)
            ]

        alone = traded(padded[0], np.full(at_once, NONE))
        blocks = [traded(block, feature[block]) for block in padded]
    count = len(feature)
    whole = [np.concatenate(pieces)[:count] for pieces in zip(*blocks, strict=True)]
    return [each[np.arange(count) % at_once] for each in alone], whole


def _numbers(agent: Any, state: Any, params: EnvParams, env: TradingEnv, decisions: int) -> int:
    """About how many float32 numbers one variant takes: its features, and what each decision reads and leaves."""
    _, assets, features = params.arrays.features.shape
    window = jax.ShapeDtypeStruct((1, env.window, assets, features), params.arrays.features.dtype)
    context = jax.tree.leaves(jax.eval_shape(partial(agent.encode, state), window))
    of_decision = sum(leaf.size for leaf in context) + 4 * (assets + 1)
    of_rows = params.arrays.features.size + len(params.arrays.close) * assets
    return of_rows + decisions * len(env.market.segments) * of_decision


def _orders(
    market: Market, first: Int[np.ndarray, " segment"], rotations: Float[np.ndarray, " variant"], rows: int
) -> Int[np.ndarray, "variant row asset"]:
    """From which row each row of the features is taken, where the bars that windows see are rotated by these shares."""
    assets = market.close.shape[1]
    order = np.broadcast_to(np.arange(rows, dtype=np.int32)[:, None], (len(rotations), rows, assets)).copy()
    for begin, (_, _, end) in zip(first, market.segments, strict=True):
        for asset in range(assets):
            own = np.arange(begin, end)
            if market.listed is not None:
                own = own[market.listed[own, asset]]
            if not len(own):
                continue
            offsets = np.round(rotations * len(own)).astype(int)
            order[:, own, asset] = own[(np.arange(len(own)) - offsets[:, None]) % len(own)]
    return order


@partial(compilation.Jitted, cpu_options=compilation.SHORT_TO_COMPILE, static_argnames=("env", "decisions"))
def _variants(
    agent: Any,
    state: Any,
    params: EnvParams,
    order: Int[Array, "variant row asset"],
    feature: Int[Array, " variant"],
    *,
    env: TradingEnv,
    decisions: int,
) -> Holdings:
    """The holdings `[variant, bar, segment]` of each variant, with one feature, or NONE, in another order of rows."""
    features = params.arrays.features

    def variant(order: Array, feature: Array) -> Holdings:
        moved = jnp.take_along_axis(features, order[..., None], axis=0)
        is_moved = jnp.arange(features.shape[-1]) == feature
        own = params.replace(arrays=params.arrays.replace(features=jnp.where(is_moved, moved, features)))
        return rollout_policy(agent, state, own, env=env, decisions=decisions).account

    return jax.vmap(variant)(order, feature)
