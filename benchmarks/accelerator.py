"""What does this accelerator give? One run of at most 8 minutes, the most telling parts first.

limits: versions, the bandwidth of memory and the rate of matrix products in three precisions.
exact: the ledger, a rollout of given actions and PPO's gradient on the device, beside float64 on the CPU.
speed: PPO end to end over environments, precisions, accounts a path, windows and networks, one setting moved at a time.
    Beside each row is its share of the measured rate of products, and what tracing and compiling took.
launches: what a decision of a rollout and a gradient step launch as compiled here, and the time of each.
seeds: 16 trainings as one program, as Trainer(seeds=16) runs them, beside one.

The file is written anew after each part and each row of `speed`, so a run that is cut off keeps what it had. A row that
may not end within the budget is skipped with a line.

    python benchmarks/accelerator.py [--quick] [--minutes 8] [--device gpu]
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from drift import CASES as LEDGER_CASES
from drift import drift
from hardware_limits import timed, traffic, whole
from hlo import Program
from machine import arguments, parsed, show, write
from ppo_steps import SIZES, TINY, Case
from stages import minibatch
from workload import QUICK, begin, random_market

import jaxtrader as jt
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.jax_settings import package_settings
from jaxtrader.training.train_settings import NO_LIMIT
from jaxtrader.training.update import run_chunk

COLUMNS = ("part", "what", "figure", "unit", "share of the products' rate", "trace s", "compile s")
SEEDS = 16
FIRST_ROW_SECONDS = 60.0  # what a row of `speed` may take before any has told
PRECISIONS = ("highest", "default", "bfloat16")
ALLOWED = {"ledger": 1e-5, "rollout": 1e-4, "gradient": 1e-4}  # from float64, of the largest number


BASE = Case(matmul_precision="default", envs=16_384)
FASTEST = replace(BASE, agents=2, compute_dtype="bfloat16")


def speed_cases() -> list[Case]:
    """All rows of `speed`, in order."""
    moved = partial(replace, BASE)
    return [
        *(BASE, moved(envs=65_536), moved(envs=4_096)),
        *(FASTEST, moved(agents=2), moved(matmul_precision="highest"), moved(compute_dtype="bfloat16")),
        *(replace(FASTEST, envs=262_144), moved(envs=1_024), moved(envs=262_144)),
        *(moved(encoder=encoder) for encoder in ("tcn", "attention")),
        *(moved(window=window) for window in (128, 1, 512)),
        *(moved(agents=16), moved(hidden=(256, 256, 256))),
    ]


@dataclass
class Run:
    """The rows so far, and the time that is left.

    Attributes:
        name: of the file.
        budget: seconds.
        rates: products in FLOP/s, by precision.
    """

    name: str
    budget: float
    quick: bool
    began: float = field(default_factory=time.monotonic)
    rows: list[list[Any]] = field(default_factory=list)
    rates: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def left(self) -> float:
        """Seconds."""
        return self.budget - (time.monotonic() - self.began)

    def add(self, part: str, what: str, figure: Any, unit: str, *rest: Any) -> None:
        """Add a row, print it, and write the file anew."""
        row = [part, what, figure, unit, *rest]
        self.rows.append([*row, *["-"] * (len(COLUMNS) - len(row))])
        print(*row, sep=" | ", flush=True)
        self.facts["seconds"] = f"{time.monotonic() - self.began:.0f} of {self.budget:.0f}"
        write(self.name, COLUMNS, self.rows, self.facts)

    def has(self, seconds: float, part: str, what: str) -> bool:
        """Whether so many seconds are left. If not, the row says that it was skipped."""
        if self.left >= seconds:
            return True
        self.add(part, what, "skipped", f"{self.left:.0f} s of the budget are left, and it may take {seconds:.0f}")
        return False


def label(case: Case) -> str:
    """What a row of `speed` is."""
    words = [f"{case.envs:,} environments", case.network, f"window {case.window}", f"{case.agents} accounts a path"]
    return ", ".join([*words, precision_of(case)])


def precision_of(case: Case) -> str:
    """The name of a case's precision in `Run.rates`."""
    return "bfloat16" if case.compute_dtype == "bfloat16" else case.matmul_precision


# --- limits ---


def limits(run: Run) -> None:
    """What there is to have."""
    size = 128 if run.quick else 8_192
    for name in PRECISIONS:
        x = jnp.ones((size, size), jnp.bfloat16 if name == "bfloat16" else jnp.float32)
        precision = jax.lax.Precision("default" if name == "bfloat16" else name)
        took, compiled, _ = timed(partial(jnp.matmul, precision=precision), x, x, repeats=5)
        run.rates[name] = 2 * size**3 / took
        run.add("limits", f"[{size}, {size}] @ [{size}, {size}], {name}", run.rates[name] / 1e12, "TFLOP/s", 1.0)
        run.rows[-1][-1] = compiled
    ((what, _, rate, *_),) = traffic([1 if run.quick else 4_096], 5)
    run.add("limits", what, rate, "GB/s")


# --- exact ---


def exact(run: Run) -> None:
    """The device's numbers beside float64 on the CPU."""
    for case in LEDGER_CASES[-2:-1] if run.quick else (LEDGER_CASES[1], *LEDGER_CASES[-2:]):
        apart, result = drift(case, 300 if run.quick else 1_000, seed=0)
        _verdict(run, "ledger", f"equity, {case[0]}, {case[1]} assets, {len(result.fills)} fills", float(apart.max()))
    networks = [TINY] if run.quick else [Case(envs=256, encoder=name) for name in ("mlp", "tcn", "attention")]
    for i, case in enumerate(networks):
        if not run.has(40, "exact", f"gradient, {case.network}"):
            return
        _gradient(run, case, with_rollout=i == 0)


def _gradient(run: Run, case: Case, with_rollout: bool) -> None:
    """A rollout of given actions, and the gradient on what a rollout collected."""
    env = TradingEnv(random_market(QUICK["bars"]), window=case.window)
    rollouts, key = case.rollouts(env), jax.random.key(0)
    train_state, agent, params = begin(env, env.default_params, case.agent(), rollouts)
    state, paths = train_state.agent_state, train_state.env_states
    collect = jax.jit(lambda agent, state, paths, params: rollouts.collect(paths, agent, state, params, key)[1])
    rollout = collect(agent, state, paths, params)
    batch = minibatch(agent, state, rollout)
    gradient = jax.jit(lambda agent, state, batch, params: agent._gradient(state.params, state, batch, params)[0])
    precisions = ("highest",) if run.quick else ("highest", "default")
    found = {name: gradient(_with(case, name), state, batch, params) for name in precisions}

    with package_settings(x64=True), jax.default_device(jax.devices("cpu")[0]):
        agent64, state64, batch64, params64, paths64, kept = in_64_bits(
            (case.agent(), state, batch, params, paths, (rollout.action, rollout.reward, rollout.account))
        )
        state64 = state64.replace(network=state64.network.clone(compute_dtype="float64"))
        expected = gradient(agent64, state64, batch64, params64)
        if with_rollout:
            replayed = collect(Given(jnp.moveaxis(kept[0], 0, 1)), None, paths64, params64)
            for name, ours, theirs in zip(
                ("rewards", "account features"), kept[1:], (replayed.reward, replayed.account), strict=True
            ):
                _verdict(run, "rollout", f"{name}, {case.envs} environments x {case.length} bars", _apart(ours, theirs))
    for name, each in found.items():
        words = f"gradient, {case.network}, products {name}"
        _verdict(run, "gradient", words, _apart(each, expected), must=name == "highest")


def in_64_bits(tree: Any) -> Any:
    """The same numbers on the default device, those with a fraction in float64."""
    return jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.float64 if _is_float(x) else None), tree)


def _is_float(x: Any) -> bool:
    return jnp.issubdtype(jnp.asarray(x).dtype, jnp.floating)


def _with(case: Case, precision: str) -> jt.PPOAgent:
    agent = replace(case, matmul_precision=precision).agent()
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), agent)


def _apart(ours: Any, exact: Any) -> float:
    """The largest difference, as a share of the largest number."""
    ours, exact = ([np.asarray(x, np.float64) for x in jax.tree.leaves(tree)] for tree in (ours, exact))
    largest = max(np.abs(x).max() for x in exact)
    return float(max(np.abs(a - b).max() for a, b in zip(ours, exact, strict=True)) / largest)


def _verdict(run: Run, kind: str, what: str, apart: float, must: bool = True) -> None:
    if must and not apart <= ALLOWED[kind]:
        run.facts["NOT EXACT"] = f"{run.facts.get('NOT EXACT', '')}{what}: {apart:.1e} is above {ALLOWED[kind]:.0e}; "
    run.add("exact", what, f"{apart:.1e}", f"from float64; {f'at most {ALLOWED[kind]:.0e}' if must else 'no line'}")


@dataclass(frozen=True)
class Given:
    """Plays actions `[path, decision, account]`: the context of a decision is its row of them."""

    actions: Any
    needs_next = False

    def encode(self, state: Any, chunk: Any) -> Any:
        """The actions, and one row more for the decision that values the last state."""
        return jnp.concatenate([self.actions, self.actions[:, -1:]], 1)

    def act(self, state: Any, context: Any, account: Any, key: Any, deterministic: bool = False) -> tuple[Any, Any]:
        """Those of the context."""
        return context[:, 0], {}


jax.tree_util.register_dataclass(Given)


# --- speed ---


def speed(run: Run, reserve: float) -> None:
    """Training chunks, end to end."""
    cases = [TINY] if run.quick else speed_cases()
    market, longest = random_market(QUICK["bars"] if run.quick else 100_000), FIRST_ROW_SECONDS
    for i, case in enumerate(cases):
        if not run.has(longest + reserve, "speed", f"{len(cases) - i} more rows, the next {label(case)}"):
            return
        began = time.monotonic()
        try:
            chunk = case.training(market)
            chunk()
            rate = float(np.median([chunk() for _ in range(3)]))
        except jax.errors.JaxRuntimeError as error:  # such as no memory: the other rows may have enough
            run.add("speed", label(case), "failed", str(error).splitlines()[0])
            continue
        share = rate * flops(case, market) / run.rates[precision_of(case)]
        run.add("speed", label(case), rate, "steps/s", share, chunk.trace_seconds, chunk.compile_seconds)
        longest = (time.monotonic() - began) * 1.3 if i == 0 else max(longest, (time.monotonic() - began) * 1.3)


def flops(case: Case, market: jt.Market) -> float:
    """Arithmetic of one transition in an update's gradients, as XLA counts it before it compiles."""
    env = TradingEnv(market, window=case.window)
    rollouts = replace(case, envs=16, agents=1).rollouts(env)
    train_state, agent, params = begin(env, env.default_params, case.agent(), rollouts, shapes=True)
    rollout = jax.eval_shape(
        lambda *given: rollouts.collect(given[0], agent, given[1], given[2], jax.random.key(0))[1],
        train_state.env_states,
        train_state.agent_state,
        params,
    )
    batch = jax.eval_shape(lambda state, rollout: minibatch(agent, state, rollout), train_state.agent_state, rollout)
    with whole():
        counted = jax.jit(lambda state, *given: agent._gradient(state.params, state, *given)).lower(
            train_state.agent_state, batch, params
        )
    return agent.num_epochs * float(counted.cost_analysis()["flops"]) / (4 * case.length)  # pyrefly: ignore


# --- launches ---


def launches(run: Run) -> None:
    """The parts of an update as programs of their own: what they launch, and how long that takes."""
    case = TINY if run.quick else BASE
    if not run.has(60, "launches", label(case)):
        return
    env = TradingEnv(random_market(QUICK["bars"]), window=case.window)
    rollouts, key = case.rollouts(env), jax.random.key(0)
    train_state, agent, params = begin(env, env.default_params, case.agent(), rollouts)

    def collect(agent: Any, state: Any, paths: Any, params: Any) -> Any:
        return rollouts.collect(paths, agent, state, params, key)

    def learn(agent: Any, state: Any, rollout: Any, params: Any) -> Any:
        return agent.learn(state, rollout, params, key)

    took, _, program = timed(collect, agent, train_state.agent_state, train_state.env_states, params, repeats=5)
    _, rollout, _ = program(agent, train_state.agent_state, train_state.env_states, params)
    _launched(run, "a decision of a rollout", Program(program.as_text()).loop(case.length), took / case.length)
    took, _, program = timed(learn, agent, train_state.agent_state, rollout, params, repeats=5)
    steps = agent.num_epochs * agent.num_minibatches
    every = Program(program.as_text()).launches()
    each = type(every)({kind: round(count / steps) for kind, count in every.items()})
    _launched(run, "a gradient step of learning", each, took / steps)


def _launched(run: Run, what: str, counts: Any, seconds: float) -> None:
    kinds = ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
    run.add("launches", what, 1e6 * seconds, f"us, {counts.total()} launches: {kinds}")


# --- seeds ---


def seeds(run: Run) -> None:
    """Many trainings side by side in one program, beside one of them."""
    case, count = (TINY, 2) if run.quick else (replace(BASE, envs=1_024), SEEDS)
    if not run.has(90, "seeds", f"{count} seeds"):
        return
    env = TradingEnv(random_market(QUICK["bars"] if run.quick else 100_000), window=case.window)
    rollouts = case.rollouts(env)
    train_state, agent, params = begin(env, env.default_params, case.agent(), rollouts)
    many, agents = (jax.tree.map(lambda x: jnp.stack([x] * count), tree) for tree in (train_state, agent))
    many = many.replace(key=jax.random.split(jax.random.key(1), count))
    ends = {name: jnp.asarray(NO_LIMIT, jnp.int32) for name in ("updates", "episodes")}
    updates = 2
    programs = {
        "one seed": (1, (train_state, agent, params, ends, jnp.asarray(updates, jnp.int32))),
        f"{count} seeds": (count, (many, agents, params, ends, jnp.full(count, updates, jnp.int32))),
    }
    rates = {}
    for name, (members, given) in programs.items():
        took, compiled, _ = timed(partial(run_chunk, rollouts=rollouts), *given, repeats=3)
        rates[name] = members * updates * case.envs * case.length / took
        run.add("seeds", f"{name}, {case.envs:,} environments each", rates[name], "steps/s", "-", "-", compiled)
    one, together = rates.values()
    run.facts["seeds"] = f"{count} seeds in one program make {together / one:.1f} times the steps/s of one"


def main() -> None:
    parser = arguments(__doc__, "tiny shapes: only shows that the script runs")
    parser.add_argument("--minutes", type=float, default=8.0, help="in which all of it must end; default 8")
    given = parsed(parser)
    run = Run("accelerator" + "_quick" * given.quick, 60 * given.minutes, given.quick)
    run.facts["work"] = (
        f"PPO end to end: {BASE.length} bars a rollout, {SIZES}; products of float32 are highest (float32) or default "
        "(a GPU may take TF32); share: of the rate in the same precision"
    )
    limits(run)
    exact(run)
    speed(run, 0.0 if given.quick else min(120.0, run.budget / 4))  # which the parts behind it may take
    launches(run)
    seeds(run)
    show(run.name, COLUMNS, run.rows, run.facts)


if __name__ == "__main__":
    main()
