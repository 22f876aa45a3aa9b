"""`jaxtrader train --synthetic`: on a generated market whose best policy is known, and how much of it is reached."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import rich.table
from rich.console import Console

import jaxtrader as jt
from jaxtrader.agents.policy import Policy
from jaxtrader.cli import inputs, phrases, reporting
from jaxtrader.cli.command_settings import MarketSettings, Source, TrainData
from jaxtrader.cli.inputs import Values
from jaxtrader.cli.runs import dry_run, next_step, train_in_folder, write_record
from jaxtrader.cli.settings import BadInput
from jaxtrader.evaluation import tables
from jaxtrader.evaluation.optimum import Optimum, solve
from jaxtrader.market.synthetic import PROCESSES
from jaxtrader.report.content import TextTable
from jaxtrader.setting_checks import setting

TRAIN_BARS, VALID_BARS, TEST_BARS = 1_000_000, 200_000, 1_000_000
FOUND, IDLE = 0.98, 0.02  # a share of the optimum, and of bars in market, that count as learnt


def train_synthetic(values: Values, console: Console) -> int:
    """Train on one path of the market, select on a second, and score on a third."""
    trainer, best = _plan(values)
    if not values["quiet"]:
        tables.print_facts(console, _facts(trainer, best))
    if values["dry_run"]:
        return dry_run(values, trainer, console)
    settings = {**values, **inputs.absolute(values, "init_from")}
    return train_in_folder(
        trainer, settings, best.process.name, console, lambda result: _tell(best, result, values, console)
    )


def _tell(best: Optimum, result: jt.TrainResult, values: Values, console: Console) -> None:
    """Score what was trained, print and write it."""
    test = best.on_path(TEST_BARS, seed=_seeds(values["seed"])[2])
    reward, time_in_market = _score(jt.load_policy(result.policy_path), test)
    rows, sentence = _rows(test, reward, time_in_market), _sentence(test, reward, time_in_market)
    if not values["quiet"]:
        console.print(_table(rows))
        console.print()
    names = ("reward_per_bar", "share_of_optimum", "time_in_market")
    record = {name: dict(zip(names, row, strict=True)) for name, row in rows.items()}
    write_record({"bars": TEST_BARS, "rows": record, "result": sentence}, result.run_dir)
    real = "jaxtrader train, on real bars, whose best policy nobody knows"
    facts = [
        ("result", f"{phrases.interrupted(result)} {sentence}".strip()),
        ("files", phrases.files(result)),
        ("next", next_step(result, real)),
    ]
    tables.print_facts(console, facts)


def _plan(values: Values) -> tuple[jt.Trainer, Optimum]:
    """Build and check everything before anything is compiled or written."""
    with inputs.checked():
        for field in itertools.chain(*map(dataclasses.fields, (TrainData, Source, MarketSettings))):
            if field.name != "synthetic" and values[field.name] != field.default:
                raise BadInput(f"`synthetic` makes its own bars and one feature: leave out {setting(field.name)}")
        if values["seeds"] > 1:
            raise BadInput(
                f"{setting('seeds', values['seeds'])}: a share of the optimum is of one policy; use `seeds=1`"
            )
        inputs.check_settings(values)
        process = PROCESSES[values["synthetic"]]()
        train_seed, valid_seed, _ = _seeds(values["seed"])
        env = inputs.environment(values, process.market(TRAIN_BARS, train_seed))
        best = solve(process, env, VALID_BARS, valid_seed)
        return inputs.trainer(values, env, best, about=inputs.absolute(values, "init_from")), best


def _seeds(seed: int) -> tuple[int, int, int]:
    """Return the seeds of the paths for training, selection and score. Runs with different seeds share none."""
    return 3 * seed, 3 * seed + 1, 3 * seed + 2


def _score(policy: Policy, test: Optimum) -> tuple[float, float]:
    agent = policy.acting_agent
    _, params = agent.prepare(policy.state, test.env.default_params)
    reward, time_in_market = test.score(agent, policy.state, params)
    return float(reward), float(time_in_market)


def _facts(trainer: jt.Trainer, best: Optimum) -> Iterator[tuple[str, str]]:
    env, agent = inputs.trained(trainer)
    yield "data", f"synthetic, {best.process!r}: {TRAIN_BARS:,} bars to train, {VALID_BARS:,} to select, all hourly"
    yield "costs", phrases.rules(env)
    yield "positions", phrases.choice(env)
    earns = f"holds a position on {best.time_in_market:.1%} of bars and earns {1e4 * best.reward_per_bar:.3g} bp a bar"
    yield "optimum", f"by dynamic programming: the best possible policy {earns}"
    yield "network", phrases.network(agent, env.window)
    yield "training", phrases.goal(trainer)


Scores = dict[str, tuple[float, float | None, float]]


def _rows(test: Optimum, reward: float, time_in_market: float) -> Scores:
    """Return each row's reward a bar, share of the optimum (None: it earns nothing), and share of bars in market."""
    rows: Scores = {}
    for name, earned, in_market in (
        ("policy", reward, time_in_market),
        ("best possible", test.reward_per_bar, test.time_in_market),
        ("flat", test.flat_reward_per_bar, 0.0),
    ):
        share = test.share(earned)
        rows[name] = (earned, share if math.isfinite(share) else None, in_market)
    return rows


def _table(rows: Scores) -> rich.table.Table:
    shown = [
        (name, f"{1e4 * earned:.3f}", "-" if share is None else f"{share:.1%}", f"{in_market:.1%}")
        for name, (earned, share, in_market) in rows.items()
    ]
    return reporting.text_table(TextTable("Score", ("", "bp a bar", "of optimum", "in market"), shown))


def _sentence(test: Optimum, reward: float, time_in_market: float) -> str:
    share, path = test.share(reward), f"a fresh path of {TEST_BARS:,} bars"
    if share != share:
        verdict = "and it has learnt that" if time_in_market < IDLE else "which it has not learnt"
        return (
            f"On {path} the policy holds a position on {time_in_market:.2%} of bars; the best is to hold none, as "
            f"nothing pays, {verdict}."
        )
    found = "the learner finds what is there" if share >= FOUND else "the learner has not found all that is there"
    return (
        f"On {path} the policy earns {share:.1%} of what the best possible policy can expect, after costs: {found}. "
        "What it would find in real bars is another question."
    )


def made_by(config: Values, path: Path) -> str:
    """Say why such a run cannot be backtested on its own data."""
    return (
        f"{path} was trained on the synthetic market {config['synthetic']}, whose score was printed at its end; "
        "a backtest needs bars with a column named signal: give --data FILE"
    )
