"""Where does the time of an update go? Each stage is a program of its own, beside the whole.

accounts: the paths are stepped by an agent whose decision costs nothing: ledger, observation, episodes.
encoding: what the network makes of the rollout's bars before it knows an account.
acting: the rest of collecting a rollout: the heads at each decision, the draw and its log probability.
gradients: of all minibatches, encoding and heads, forwards and backwards.
optimiser: Adam and the clip, once a minibatch.
the rest: what learning takes besides: advantages, permutations, gathers of minibatches.

Each is the best of some repeats, in percent of the whole update. A program of its own may be compiled otherwise than as
a part, and nothing overlaps. So the stages need not add up to the whole, and the last column says what they do.

    python benchmarks/stages.py [--quick]
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from hardware_limits import timed
from machine import arguments, parsed, report
from ppo_steps import SIZES, TINY, Case
from workload import QUICK, begin, random_market

import jaxtrader as jt
from jaxtrader.agents.ppo import PPOAgent
from jaxtrader.envs.observation import contexts

CASES = (Case(1), Case(), Case(agents=16), Case(64, encoder="tcn"), Case(64, encoder="attention"))
STAGES = ("accounts", "encoding", "acting", "gradients", "optimiser", "the rest")


class Blind:
    """An agent without a network, which decides by the sign of what it owns."""

    needs_next = False

    def encode(self, state: Any, chunk: Any) -> Any:
        """Nothing to speak of: one number of each bar on which a decision is made."""
        return chunk[..., chunk.shape[-3] - state :, 0, :1]

    def act(self, state: Any, context: Any, account: Any, key: Any, deterministic: bool = False) -> tuple[Any, Any]:
        """Flat when it has a position, else long: it trades as much as anything can."""
        return jnp.where(account[..., 0, 0] == 0, 2, 1).astype(jnp.int32), {}


def spent(market: jt.Market, case: Case, repeats: int) -> tuple[float, dict[str, float]]:
    """Milliseconds of a whole update, and of each stage."""
    env, agent = jt.TradingEnv(market, window=case.window), case.agent()
    rollouts = case.rollouts(env)
    train_state, agent, params = begin(env, env.default_params, agent, rollouts)
    state, paths, key = train_state.agent_state, train_state.env_states, jax.random.key(0)
    best = lambda function, *given: 1e3 * timed(function, *given, repeats=repeats)[0]  # noqa: E731
    steps = agent.num_epochs * agent.num_minibatches

    def collect(agent: Any, state: Any, paths: Any, params: Any) -> Any:
        return rollouts.collect(paths, agent, state, params, key)

    def encode(agent: PPOAgent, state: Any, paths: Any, params: Any) -> Any:
        return contexts(partial(agent.encode, state), params.arrays, paths.cursor, env.window, case.length + 1, 1)

    def update(agent: PPOAgent, state: Any, paths: Any, params: Any) -> Any:
        paths, rollout, _ = collect(agent, state, paths, params)
        return paths, agent.learn(state, rollout, params, key)

    def gradient(agent: PPOAgent, state: Any, batch: Any, params: Any) -> Any:
        return agent._gradient(state.params, state, batch, params)[0]

    def descend(state: Any, gradients: Any) -> Any:
        """All steps in one program, as they are in an update."""

        def step(carry: Any, _: None) -> tuple[Any, None]:
            weights, kept = carry
            direction, kept = agent._optimizer().update(gradients, kept, weights)
            return (optax.apply_updates(weights, direction), kept), None

        return jax.lax.scan(step, (state.params, state.opt_state), None, steps)[0]

    accounts = best(partial(collect, Blind(), case.length + 1), paths, params)
    encoding = best(encode, agent, state, paths, params)
    seconds, _, compiled = timed(collect, agent, state, paths, params, repeats=repeats)
    collecting, (_, rollout, _) = 1e3 * seconds, compiled(agent, state, paths, params)
    given = agent, state, minibatch(agent, state, rollout), params
    seconds, _, compiled = timed(gradient, *given, repeats=repeats)
    gradients, optimiser = 1e3 * steps * seconds, best(descend, state, compiled(*given))
    learning = best(lambda *given: given[0].learn(*given[1:], key), agent, state, rollout, params)
    whole = best(update, agent, state, paths, params)
    found = (accounts, encoding, collecting - accounts - encoding, gradients, optimiser)
    return whole, dict(zip(STAGES, (*found, learning - gradients - optimiser), strict=True))


def minibatch(agent: PPOAgent, state: Any, rollout: Any) -> dict[str, Any]:
    """The first paths of a rollout, as `learn` hands them to a gradient step. Targets do not matter for the time."""
    paths = rollout.reward.shape[1] // agent.num_minibatches
    rows = {name: getattr(rollout, name) for name in ("action", "log_prob", "account")}
    rows |= {"action": state.network.actions.from_env(rollout.action), "advantage": rollout.reward}
    rows |= {"target": rollout.value}
    rows = jax.tree.map(lambda x: jnp.copy(jnp.moveaxis(x, 1, 0)[:paths]), rows)
    return {**rows, "cursor": rollout.cursor[:paths], "observations": None}


def main() -> None:
    quick = parsed(arguments(__doc__, "one tiny case: only shows that the script runs")).quick
    cases, bars, repeats = ((TINY,), QUICK["bars"], 2) if quick else (CASES, 100_000, 7)
    market = random_market(bars)
    rows: list[list[Any]] = []
    for case in cases:
        whole, parts = spent(market, case, repeats)
        shares = [100 * x / whole for x in (*parts.values(), sum(parts.values()))]
        rows.append([case.network, case.window, case.agents, whole, *shares])
        print(*rows[-1], sep=" | ", flush=True)
    columns = ["network", "window", "accounts a path", "update, ms", *(f"{name}, %" for name in (*STAGES, "together"))]
    work = f"{cases[0].envs} environments x {cases[0].length} bars, {SIZES}, float32"
    report("stages", columns, rows, {"work": work}, quick)


if __name__ == "__main__":
    main()
