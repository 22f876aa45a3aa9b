"""`jaxtrader train --synthetic`: on a generated market whose best policy is known, and how much of it is reached."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console, Group
from rich.text import Text

from jaxtrader.agents.policy import Policy, load_policy
from jaxtrader.agents.ppo import PPOAgent
from jaxtrader.cli import inputs, phrases
from jaxtrader.cli.config import INTERRUPTED, OK, BadInput, TrainConfig
from jaxtrader.evaluation import report
from jaxtrader.evaluation.optimum import Optimum, solve
from jaxtrader.market.synthetic import PROCESSES
from jaxtrader.training.checkpoint import make_run_dir
from jaxtrader.training.trainer import Trainer

TRAIN_BARS, VALID_BARS, TEST_BARS = 1_000_000, 200_000, 1_000_000
FOUND, IDLE = 0.98, 0.02  # a share of the optimum, and of bars with a position, that count as learnt
READING = ("symbols", "tz", "label", "repair", "no_adjust", "portfolio")
BARS_FLAGS = ("data", "features", "train_end", "valid_end", *READING)


def train_synthetic(config: TrainConfig, console: Console) -> int:
    """Train on one path of the market, select on a second, and score on a third."""
    trainer, best = _plan(config)
    if not config.quiet:
        report.print_facts(console, _facts(config, trainer, best))
    if config.dry_run:
        return phrases.dry_run(config, trainer, {}, console)
    with inputs.checked():
        trainer.run_dir = make_run_dir(config.run_dir, best.process.name)
    result = trainer.train()
    if not config.quiet:
        console.print(phrases.speed(result))
        console.print()
    test = best.on_path(TEST_BARS, seed=_seeds(config)[2])
    reward, held = _score(load_policy(result.policy_path), test)
    if not config.quiet:
        console.print(_table(test, reward, held))
        console.print()
    stopped = "Interrupted, and saved what was learnt so far. " if result.interrupted else ""
    facts = [("result", stopped + _sentence(test, reward, held)), ("files", phrases.files(result))]
    report.print_facts(console, [*facts, ("next", "jaxtrader train, on real bars, whose best policy nobody knows")])
    return INTERRUPTED if result.interrupted else OK


def _plan(config: TrainConfig) -> tuple[Trainer, Optimum]:
    """Build and check everything before anything is compiled or written."""
    with inputs.checked():
        inputs.check_run(config)
        defaults = TrainConfig()
        for flag in BARS_FLAGS:
            if getattr(config, flag) != getattr(defaults, flag):
                raise BadInput(f"--synthetic makes its own bars and one feature: leave out --{flag.replace('_', '-')}")
        assert config.synthetic is not None
        process = PROCESSES[config.synthetic]()
        train_seed, valid_seed, _ = _seeds(config)
        env = inputs.environment(config, process.market(TRAIN_BARS, train_seed))
        best = solve(process, env, VALID_BARS, valid_seed)
        trainer = Trainer(
            env,
            PPOAgent(**inputs.shared(PPOAgent, config)),
            valid=best,
            **inputs.shared(Trainer, config) | {"run_dir": None},
            about={"command": dataclasses.asdict(config)},
            progress=not config.quiet,
        )
        return trainer, best


def _seeds(config: TrainConfig) -> tuple[int, int, int]:
    """Of the paths for training, selection and score: no two runs with different seeds share one."""
    return 3 * config.seed, 3 * config.seed + 1, 3 * config.seed + 2


def _score(policy: Policy, test: Optimum) -> tuple[float, float]:
    _, params = policy.agent.prepare(policy.state, test.env.default_params)
    reward, held = test.walk(policy.agent, policy.state, params)
    return float(reward), float(held)


def _facts(config: TrainConfig, trainer: Trainer, best: Optimum) -> Iterator[tuple[str, str]]:
    yield "data", f"synthetic, {best.process!r}: {TRAIN_BARS:,} bars to train, {VALID_BARS:,} to select, all hourly"
    yield "costs", phrases.rules(trainer.env)
    yield "positions", phrases.choice(trainer.env)
    earns = f"holds a position on {best.held:.1%} of bars and earns {1e4 * best.reward_per_bar:.3g} bp a bar"
    yield "optimum", f"by dynamic programming: the best possible policy {earns}"
    yield "network", phrases.network(trainer.agent, config.window)
    yield "training", phrases.goal(config, trainer)


def _table(test: Optimum, reward: float, held: float) -> Group:
    lines = [Text(f"{'':<15}{'bp a bar':>10}{'of optimum':>13}{'in position':>14}", style="dim")]
    rows = {
        "policy": (reward, held),
        "best possible": (test.reward_per_bar, test.held),
        "flat": (test.flat_reward_per_bar, 0.0),
    }
    for name, (earned, share) in rows.items():
        of_best = test.share(earned)
        told = f"{of_best:.1%}" if of_best == of_best else "-"
        lines.append(Text(f"{name:<15}{1e4 * earned:>10.3f}{told:>13}{share:>14.1%}"))
    return Group(*lines)


def _sentence(test: Optimum, reward: float, held: float) -> str:
    share, path = test.share(reward), f"a fresh path of {TEST_BARS:,} bars"
    if share != share:
        verdict = "and it has learnt that" if held < IDLE else "which it has not learnt"
        return (
            f"On {path} the policy holds a position on {held:.2%} of bars; the best is to hold none, as nothing pays, "
            f"{verdict}."
        )
    found = "the learner finds what is there" if share >= FOUND else "the learner has not found all that is there"
    return (
        f"On {path} the policy earns {share:.1%} of what the best possible policy can expect, after costs: {found}. "
        "What it would find in real bars is another question."
    )


def made_by(config: dict[str, object], path: Path) -> str:
    """What to say to somebody who wants such a run backtested."""
    return (
        f"{path} was trained on the synthetic market {config['synthetic']}, whose score was printed at its end; "
        "a backtest needs bars with a column named signal: give --data FILE"
    )
