"""`jaxtrader backtest`: a trained policy on the test part of its own data, or on another file."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

import jaxtrader as jt
from jaxtrader.agents.policy import Policy
from jaxtrader.cli import inputs, phrases
from jaxtrader.cli.inputs import Values
from jaxtrader.cli.settings import OK, PARTS, BacktestData, BadInput, Source, of
from jaxtrader.cli.synthetic_command import made_by
from jaxtrader.envs.env_settings import EnvSettings
from jaxtrader.evaluation import tables
from jaxtrader.evaluation.baselines import EXPOSURE_MATCHED, baselines, break_even
from jaxtrader.ledger.cost_rates import CostRates
from jaxtrader.ledger.costs import CostRange


def backtest_policy(values: Values, console: Console) -> int:
    """`jaxtrader backtest`. What is not among the settings stays as it was in training."""
    wanted = BacktestData(**of(BacktestData, values))
    with inputs.checked():
        path = Path(wanted.run)
        policy = jt.load_policy(path / "policy.pkl" if path.is_dir() else path)
        name, market = _asked(wanted, Source(**of(Source, values)), policy)
        costs = policy.costs.middle if isinstance(policy.costs, CostRange) else policy.costs
        changes: dict[str, Any] = {
            "costs": costs.replace(**of(CostRates, values)),
            "rules": policy.rules.replace(**of(jt.Rules, values)),
            **of(EnvSettings, values),
        }
        env = policy.environment(market, **changes)
        market = inputs.tradable(env, name)
        if wanted.save is not None:
            inputs.refuse_full(Path(wanted.save))
    judged = {name: judge(policy, market, **changes)}
    notes = [*tables.grouped(market.notes), *_overlap(policy, market)]
    facts = [("policy", str(path)), ("data", phrases.data(market)), ("costs", phrases.rules(env))]
    tables.print_facts(console, [*facts, *(("note", note) for note in notes)])
    console.print()
    console.print(tables.table(judged))
    console.print()
    result = judged[name][tables.POLICY]
    facts = [("trades", tables.trades_line(result))]
    if (orders := tables.orders_line(result)) is not None:
        facts.append(("orders", orders))
    facts.append(("break-even", tables.break_even_line(break_even(result, judged[name][EXPOSURE_MATCHED]))))
    if wanted.save is not None:
        facts.append(("saved", _save(result, Path(wanted.save))))
    tables.print_facts(console, [*facts, ("result", tables.sentence(judged))])
    return OK


def _asked(wanted: BacktestData, source: Source, policy: Policy) -> tuple[str, jt.Market]:
    """The bars to test on, and what to call them."""
    command, portfolio = policy.about.get("command"), policy.portfolio
    if wanted.data is not None:
        if wanted.part is not None:
            raise BadInput(f"--part {wanted.part} is of the data of training; with --data use --start and --end")
        market = inputs.read_market(wanted.data, source, policy.features, portfolio)
        return Path(wanted.data).name, inputs.narrowed(market, wanted.start, wanted.end, source)
    if command is None:
        raise BadInput(f"{wanted.run} was not trained by this command and does not say its data; give --data FILE")
    if command["synthetic"] is not None:
        raise BadInput(made_by(command, Path(wanted.run)))
    if reading := list(phrases.reading(dataclasses.replace(source, symbols=None))):
        raise BadInput(f"{reading[0]} says how to read a file: give --data FILE with it")
    trained = Source(**of(Source, command))
    trained = dataclasses.replace(trained, symbols=source.symbols or trained.symbols)
    market = inputs.read_market(command["data"], trained, policy.features, portfolio)
    part = wanted.part or "test"
    if part != "all":
        market = market.split(*(np.datetime64(cut) for cut in command["cuts"]))[list(PARTS).index(part)]
    return PARTS.get(part, "all bars"), inputs.narrowed(market, wanted.start, wanted.end, trained)


def _overlap(policy: Policy, market: jt.Market) -> Iterator[str]:
    """A warning where the bars are not new to the policy."""
    command = policy.about.get("command")
    if command is None:
        yield "This policy does not say on which dates it was trained: only later ones are a test."
    elif command["synthetic"] is None and inputs.first_time(market) < np.datetime64(command["cuts"][1]):
        until = np.datetime64(command["cuts"][1], "D")
        yield f"Training and selection used dates before {until}: what lies before it is no test."


def _save(result: jt.BacktestResult, folder: Path) -> str:
    """Write the equity and the trades as CSV; what was written, in words."""
    import pandas as pd

    folder.mkdir(parents=True, exist_ok=True)
    result.to_frame().to_csv(folder / "equity.csv")
    pd.DataFrame(result.trades).to_csv(folder / "trades.csv", index=False)
    return f"{folder / 'equity.csv'} ({len(result):,} bars), {folder / 'trades.csv'} ({len(result.trades):,} trades)"


def judge(policy: Policy, market: jt.Market, **changes: Any) -> dict[str, jt.BacktestResult]:
    """The policy's result, and its baselines."""
    result = jt.backtest(policy, market, **changes)
    return {tables.POLICY: result, **baselines(market, result)}
