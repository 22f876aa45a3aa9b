"""The names of our environments in Gymnasium. Importing this module registers them, so that `gymnasium.make` works.

    import gymnasium
    import jaxtrader.gymnasium

    env = gymnasium.make("jaxtrader/Trading-v0", data="prices.csv", positions=(-1, 0, 1))
    envs = gymnasium.make_vec("jaxtrader/AR1-v0", num_envs=64)

`gymnasium.make("jaxtrader.gymnasium:jaxtrader/Trading-v0")` imports it by itself. (Since version 1.0 Gymnasium reads no
entry points of packages.)
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import gymnasium

from jaxtrader.bridges.gymnasium_envs import to_gymnasium
from jaxtrader.bridges.scored import ScoredEnv
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.evaluation import optimum
from jaxtrader.market.bars import Bars, load_bars
from jaxtrader.market.datasets import load_bundled
from jaxtrader.market.market import Market
from jaxtrader.market.synthetic import PROCESSES

TRADING = "jaxtrader/Trading-v0"
SYNTHETIC = {
    "jaxtrader/AR1-v0": "ar1",
    "jaxtrader/MeanReversion-v0": "mean_reversion",
    "jaxtrader/RandomWalk-v0": "random_walk",
    "jaxtrader/HiddenRegime-v0": "hidden_regime",
}
FORM = tuple(inspect.signature(to_gymnasium).parameters)[1:]


def trading(
    data: Any = None, features: Sequence[Any] | None = None, num_envs: int | None = None, **settings: Any
) -> Any:
    """Return the environment of "jaxtrader/Trading-v0".

    Args:
        data: a Market, or what `Market.from_bars` or `load_bars` take. None: the stocks that come with the package.
        features: the features of the market, unless `data` is a Market.
        num_envs: the number of environments, see `to_gymnasium`.
        settings: the settings of a TradingEnv, and `normalize` and `observation` of `to_gymnasium`.
    """
    if isinstance(data, Market):
        if features is not None:
            raise ValueError("a Market has its features; leave out `features`, or give bars")
        market = data
    else:
        bars: Any = load_bundled() if data is None else data
        are_bars = isinstance(bars, Bars) or (isinstance(bars, tuple | list) and all(isinstance(x, Bars) for x in bars))
        market = Market.from_bars(bars if are_bars else load_bars(bars), features=features)
    form = {name: settings.pop(name) for name in FORM if name in settings}
    return to_gymnasium(TradingEnv(market, **settings), num_envs, **form)


def synthetic(
    process: str, bars: int = 100_000, data_seed: int = 0, num_envs: int | None = None, **settings: Any
) -> Any:
    """Return the environment of a market whose best policy is known, see `ScoredEnv`.

    Args:
        process: a name in `jt.datasets`, such as "ar1".
        bars: the number of bars that are drawn.
        data_seed: the seed of the draw.
        num_envs: the number of environments, see `to_gymnasium`.
        settings: the settings of the process, such as `r2`, of a TradingEnv, whose window is 1 by default, and of
            `to_gymnasium`.
    """
    kind = PROCESSES[process]
    own = [name for name in inspect.signature(kind).parameters if name in settings]
    drawn = kind(**{name: settings.pop(name) for name in own})
    form = {name: settings.pop(name) for name in FORM if name in settings}
    settings.setdefault("window", 1)
    env = TradingEnv(drawn.market(bars, data_seed), **settings)
    # Episodes are scored on this market. The optimum also draws a path of its own, which nobody uses, so it is short.
    best = optimum.solve(drawn, env, bars=env.window + optimum.SEGMENT_BARS + 1)
    return to_gymnasium(ScoredEnv(env, best), num_envs, **form)


def _register() -> None:
    here = __name__
    for name, entry, settings in [(TRADING, "trading", {})] + [
        (name, "synthetic", {"process": process}) for name, process in SYNTHETIC.items()
    ]:
        if name not in gymnasium.registry:
            point = f"{here}:{entry}"
            gymnasium.register(name, entry_point=point, vector_entry_point=point, kwargs=settings)


_register()
