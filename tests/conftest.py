"""Shared tiny fixtures: two random walks of unequal length as a market, an environment and an agent over it.

Session-wide and read-only. Shapes are shared so that little is compiled. Nothing here is an oracle.
"""

from __future__ import annotations

import atexit
import dataclasses
import gc
import importlib.metadata
import os
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

# Before JAX is loaded, and for the processes that tests start. Most of the time is compiling, and the optimiser is not
# what is tested: without it a third is saved. `optimized` is for what runs long. "false" from outside is for all, and
# then nothing is left out. XLA's older way to emit fused loops compiles three times as fast, to code that is slower. It
# aborts at a flag that it does not know, so the flag is given only where it is known.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")
if os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "true" and importlib.metadata.version("jaxlib").startswith("0.10."):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false"
    os.environ["XLA_FLAGS"] += " --xla_cpu_parallel_codegen_split_count=1"  # small programs
# What one run compiled must not decide about another: a folder of this run's own, which its workers and the processes
# that tests start share.
os.environ["JAXTRADER_CACHE"] = "off"
# `JAXTRADER_TESTS_CACHE` names one for several runs, as .ci/run has them.
if "PYTEST_XDIST_WORKER" not in os.environ:
    shared = os.environ.get("JAXTRADER_TESTS_CACHE")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = shared or tempfile.mkdtemp(prefix="jaxtrader-tests-")
    if not shared:
        atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policies import init
from random_walks import FEATURES, walk

from jaxtrader.agents.ppo import PPOAgent, PPOState
from jaxtrader.envs.episode import EnvParams
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.market.bars import Bars
from jaxtrader.market.market import Market

# A job in the background ignores what Ctrl-C sends, and some tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)

jax.config.update("jax_num_cpu_devices", 2)  # before JAX is used: for tests/training/test_devices.py

LENGTHS = (150, 90)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what comes after the first n cases of a test that is marked `quick(n)`."""
    counted: Counter[str] = Counter()
    for item in items:
        quick = item.get_closest_marker("quick")
        if quick is not None and item.get_closest_marker("slow") is None:
            test = item.nodeid.partition("[")[0]
            counted[test] += 1
            if counted[test] > quick.args[0]:
                item.add_marker("slow")


def pytest_collection_finish() -> None:
    """Garbage is looked for more rarely: tracing makes many objects that live on, and what is loaded by now stays."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


@pytest.fixture
def optimized() -> Iterator[None]:
    """Programs are optimised by XLA, as they are for users: for tests that run longer than they compile."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command judges no other fills, timing and features, which compile programs of their own for all rules.

    The quick tests of the command look at them for accounts of one asset, and test_money.py for a portfolio.
    """
    from jaxtrader.report import evidence

    monkeypatch.setattr(evidence, "_stress", lambda *_: {})
    monkeypatch.setattr(evidence, "_timing", lambda *_: None)
    monkeypatch.setattr(evidence, "permutation_importance", lambda *_, **__: None)


@pytest.fixture(scope="session", autouse=True)
def plain_terminal() -> Iterator[None]:
    """What is printed is 100 columns wide, whatever the terminal that runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "100")
        yield


@pytest.fixture(scope="session")
def make_market() -> Callable[..., Market]:
    """`make_market(lengths, seed)`: one random walk a length, features FEATURES."""

    def make(lengths: Sequence[int] = LENGTHS, seed: int = 0) -> Market:
        return Market.from_bars([walk(f"S{i}", n, seed + i) for i, n in enumerate(lengths)], features=FEATURES)

    return make


def side_by_side(*bars: Bars) -> Bars:
    """One history of several symbols that have the same times."""
    columns = {name: np.hstack([getattr(b, name) for b in bars]) for name in ("open", "high", "low", "close", "volume")}
    further = {name: np.hstack([b.columns[name] for b in bars]) for name in bars[0].columns}
    symbols = tuple(symbol for b in bars for symbol in b.symbols)
    return dataclasses.replace(bars[0], symbols=symbols, columns=further, **columns)


@pytest.fixture(scope="session")
def make_portfolio() -> Callable[..., Market]:
    """`make_portfolio(assets, bars, seed)`: one history of random walks, features FEATURES."""

    def make(assets: int = 3, bars: int = 150, seed: int = 0) -> Market:
        walks = [walk(f"P{i}", bars, 100 + 10 * seed + i) for i in range(assets)]
        return Market.from_bars(side_by_side(*walks), features=FEATURES)

    return make


@pytest.fixture(scope="session")
def portfolio(make_portfolio: Callable[..., Market]) -> TradingEnv:
    """Weights over P0, P1, P2 (150 bars), window 4, episodes of 16 bars."""
    return TradingEnv(make_portfolio(), positions="weights", window=4, episode_length=16)


@pytest.fixture(scope="session")
def market(make_market: Callable[..., Market]) -> Market:
    """Symbols S0 (150 bars) and S1 (90 bars), end to end."""
    return make_market()


@pytest.fixture(scope="session")
def env(market: Market) -> TradingEnv:
    """Window 4, episodes of 16 bars, costs and rules by default."""
    return TradingEnv(market, window=4, episode_length=16)


@pytest.fixture(scope="session")
def agent() -> PPOAgent:
    """A PPOAgent with a tiny network: 2 epochs of 2 minibatches."""
    return PPOAgent(hidden=(8, 8), num_epochs=2, num_minibatches=2)


@pytest.fixture(scope="session")
def raw_params(env: TradingEnv) -> EnvParams:
    """`env.default_params`, features as they are."""
    return env.default_params


@pytest.fixture(scope="session")
def prepared(env: TradingEnv, agent: PPOAgent, raw_params: EnvParams) -> tuple[PPOState, EnvParams]:
    """A fresh agent state that knows the normalisation, and the parameters it was applied to."""
    return agent.prepare(init(agent, jax.random.key(0), env, raw_params), raw_params)


@pytest.fixture(scope="session")
def state(prepared: tuple[PPOState, EnvParams]) -> PPOState:
    """The state of `prepared`."""
    return prepared[0]


@pytest.fixture(scope="session")
def params(prepared: tuple[PPOState, EnvParams]) -> EnvParams:
    """The environment's parameters of `prepared`."""
    return prepared[1]


@pytest.fixture(scope="session")
def with_encoder(
    env: TradingEnv, agent: PPOAgent, state: PPOState, raw_params: EnvParams
) -> Callable[..., tuple[PPOAgent, PPOState]]:
    """`with_encoder(encoder="tcn")`: the agent and state with another encoder and random weights. It compiles
    nothing."""

    def make(**settings: Any) -> tuple[PPOAgent, PPOState]:
        other = agent.replace(encoder_width=16, **settings)
        network, *_ = other._network(env, raw_params)
        rng, shapes = np.random.default_rng(0), jax.eval_shape(network.fresh, jax.random.key(0))
        weights = jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.3, x.shape), x.dtype), shapes)
        return other, state.replace(network=network, params=weights, opt_state=other._optimizer().init(weights))

    return make
