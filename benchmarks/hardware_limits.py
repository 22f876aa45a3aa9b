"""What can this machine do through JAX, and what share of it does a PPO update reach?

Matrix products and additions of large arrays say what there is to have: the best of some repeats. The update is
`PPOAgent.learn` alone, 4 epochs x 4 minibatches. Its arithmetic is counted by hand: the products of the networks,
forwards and backwards. Its bytes are XLA's count for one minibatch times 16, since XLA counts the body of a loop once.
They include what stays in a cache, so their share may pass 1.

    python benchmarks/hardware_limits.py [--quick]
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from machine import arguments, parsed, report, seconds
from ppo_steps import SIZES, TINY, Case
from workload import FEATURES, QUICK, begin, random_market

import jaxtrader as jt
from jaxtrader.agents import blocks
from jaxtrader.envs.observation import ACCOUNT_FEATURES

SQUARES, TALL = (128, 512, 2048), (16_384, 260, 128)


def timed(function: Callable[..., Any], *arguments: Any, repeats: int) -> tuple[float, float, Any]:
    """The best seconds of a jitted function (a limit is the best there is), compile seconds, the executable."""
    began = time.perf_counter()
    compiled = jax.jit(function).lower(*arguments).compile()
    compile_seconds = time.perf_counter() - began
    run = lambda: jax.block_until_ready(compiled(*arguments))  # noqa: E731
    run()
    return min(seconds(run, repeats)), compile_seconds, compiled


def products(shapes: list[tuple[int, int, int]], repeats: int) -> list[list[Any]]:
    """GFLOP/s of matrix products `[n, k] @ [k, m]`."""
    rows = []
    for n, k, m in shapes:
        a, b = jnp.ones((n, k), jnp.float32), jnp.ones((k, m), jnp.float32)
        took, compiled, _ = timed(jnp.matmul, a, b, repeats=repeats)
        rows.append([f"[{n}, {k}] @ [{k}, {m}]", 2 * n * k * m / took / 1e9, "-", took * 1e3, compiled])
    return rows


def traffic(mebibytes: list[int], repeats: int) -> list[list[Any]]:
    """GB/s of `x + 1` in place: one read and one write, and no fresh memory, whose first touch costs by itself."""
    rows = []
    for size in mebibytes:
        x = jnp.ones(size * 2**18, jnp.float32)
        began = time.perf_counter()
        add = jax.jit(lambda x: x + 1, donate_argnums=0).lower(x).compile()
        compiled, times = time.perf_counter() - began, []
        for _ in range(repeats):
            began = time.perf_counter()
            x = jax.block_until_ready(add(x))
            times.append(time.perf_counter() - began)
        took = min(times[1:])
        rows.append([f"x + 1, {size} MiB", "-", 2 * x.nbytes / took / 1e9, took * 1e3, compiled])
    return rows


def flops_by_hand(agent: jt.PPOAgent, window: int, actions: int) -> float:
    """Of one transition in one update: each product twice its size forwards, and again for each gradient it has."""
    first = (window * FEATURES + len(ACCOUNT_FEATURES)) * agent.hidden[0] * 2  # two torsos, whose input has no gradient
    later = 2 * sum(a * b for a, b in zip(agent.hidden, agent.hidden[1:], strict=False)) + agent.hidden[-1] * (
        actions + 1
    )
    return agent.num_epochs * 2 * (2 * first + 3 * later)


@contextlib.contextmanager
def whole() -> Iterator[None]:
    """Minibatches in one block of paths: XLA counts the body of the loop over blocks once."""
    before = blocks.CPU_BLOCK_BYTES
    blocks.CPU_BLOCK_BYTES = 2**40
    try:
        yield
    finally:
        blocks.CPU_BLOCK_BYTES = before


def update(market: jt.Market, case: Case, repeats: int) -> tuple[float, ...]:
    """Seconds, GFLOP/s, GB/s and compile seconds of one `learn`, and XLA's count of its arithmetic over ours."""
    env = jt.TradingEnv(market, window=case.window)
    rollouts, key = case.rollouts(env), jax.random.key(0)
    carry, agent, params = begin(env, env.default_params, case.agent(), rollouts)
    state = carry.agent_state
    rollout = jax.jit(lambda params: rollouts.collect(carry.env_states, agent, state, params, key)[1])(params)

    def learn(agent: jt.PPOAgent, state: Any, rollout: Any, params: Any) -> Any:
        return agent.learn(state, rollout, params, key)

    took, compiled, _ = timed(learn, agent, state, rollout, params, repeats=repeats)
    part = jax.tree.map(lambda x: x[:, : case.envs // 4], rollout.replace(cursor=rollout.cursor[None]))
    one = dataclasses.replace(agent, num_epochs=1, num_minibatches=1)
    with whole():
        single = jax.jit(lambda *given: learn(*given)).lower(one, state, part.replace(cursor=part.cursor[0]), params)
        counted = single.compile().cost_analysis()
    moved, theirs = 16 * counted["bytes accessed"], 16 * counted["flops"]
    flops = flops_by_hand(agent, case.window, env.num_actions) * case.envs * case.length
    return took, flops / took / 1e9, moved / took / 1e9, compiled, theirs / flops


def main() -> None:
    quick = parsed(arguments(__doc__)).quick
    repeats, squares, cases = (2, SQUARES[:1], [TINY]) if quick else (9, SQUARES, [Case(1), Case()])
    rows = products([*((n, n, n) for n in squares), *([] if quick else [TALL])], 5 * repeats)
    rows += traffic([1] if quick else [1, 16, 256], 5 * repeats)
    peak = max(row[1] for row in rows if row[1] != "-")
    band = rows[-1][2]
    market = random_market(QUICK["bars"] if quick else 100_000)
    facts = {"work": f"update: {cases[0].envs} environments x {cases[0].length} bars, {SIZES}, MLP 2x64 twice, float32"}
    for case in cases:
        took, flops, moved, compiled, counts = update(market, case, repeats)
        rows.append([f"PPO update, window {case.window}", flops, moved, took * 1e3, compiled])
        if not 0.8 < counts < 1.25:
            raise SystemExit(f"XLA counts {counts:.2f} times our operations: one of the two is wrong, and so its bytes")
        share = f"{flops / peak:.2f} of the fastest product, {moved / band:.2f} of the largest array's traffic"
        facts[f"PPO update, window {case.window}"] = f"{share}; XLA counts {counts:.2f} times our operations"
    report("hardware_limits", ["what", "GFLOP/s", "GB/s", "ms", "compile s"], rows, facts, quick)


if __name__ == "__main__":
    main()
