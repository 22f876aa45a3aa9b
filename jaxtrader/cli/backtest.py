"""`jaxtrader backtest`: a trained policy on the test part of its own data, or on another file."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from jaxtrader.agents.policy import Policy, load_policy
from jaxtrader.cli import inputs, phrases
from jaxtrader.cli.config import OK, PARTS, BacktestConfig, BadInput, Source
from jaxtrader.cli.synthetic import made_by
from jaxtrader.envs.costs import LIMITS, CostRange, from_dict
from jaxtrader.evaluation import report
from jaxtrader.evaluation.backtest import backtest
from jaxtrader.evaluation.baselines import beside, break_even
from jaxtrader.evaluation.book import Book
from jaxtrader.market.market import Market


def backtest_policy(config: BacktestConfig, console: Console) -> int:
    """`jaxtrader backtest`."""
    with inputs.checked():
        path = Path(config.run)
        policy = load_policy(path / "policy.pkl" if path.is_dir() else path)
        name, market = _asked(config, policy)
        costs = from_dict(policy.about["env"]["costs"])
        costs = costs.middle if isinstance(costs, CostRange) else costs
        rates = inputs.given(config, LIMITS)
        for rate, bps in (("fee", config.fee_bps), ("slippage", config.slippage_bps)):
            rates |= {} if bps is None else {rate: bps * 1e-4}
        changes: dict[str, Any] = {"costs": costs.replace(**rates), **inputs.given(config, inputs.MONEY_RULES)}
        for rule in ("fill", "rebalance_band"):
            changes |= {} if getattr(config, rule) is None else {rule: getattr(config, rule)}
        env = policy.environment(market, **changes)
        market = inputs.tradable(env, name)
        if config.save is not None:
            inputs.refuse_full(Path(config.save))
    judged = {name: judge(policy, market, **changes)}
    facts = [
        ("policy", str(path)),
        ("data", f"{market.source}: {phrases.content(market)}, {market.periods_per_year:,.6g} periods a year"),
        ("costs", phrases.rules(env)),
        *(("note", note) for note in [*report.grouped(market.notes), *_overlap(policy, market)]),
    ]
    report.print_facts(console, facts)
    console.print()
    console.print(report.table(judged))
    console.print()
    book = judged[name][report.POLICY]
    saved = [] if config.save is None else [("saved", _save(book, Path(config.save)))]
    lead = report.break_even_line(break_even(book, judged[name][report.MATCHED]))
    result = ("result", report.sentence(judged))
    orders = [] if (line := report.orders_line(book)) is None else [("orders", line)]
    report.print_facts(console, [("trades", report.trades_line(book)), *orders, ("break-even", lead), *saved, result])
    return OK


def _asked(config: BacktestConfig, policy: Policy) -> tuple[str, Market]:
    """The bars to test on, and what to call them."""
    command, portfolio = policy.about.get("command"), policy.portfolio
    if config.data is not None:
        if config.part is not None:
            raise BadInput(f"--part {config.part} is of the data of training; with --data use --start and --end")
        market = inputs.read_market(config.data, config, policy.features, portfolio)
        return Path(config.data).name, inputs.narrowed(market, config, config)
    if command is None:
        raise BadInput(f"{config.run} was not trained by this command and does not say its data; give --data FILE")
    if command.get("synthetic") is not None:
        raise BadInput(made_by(command, Path(config.run)))
    reading = [flag for flag in phrases.reading(config) if not flag.startswith("--symbols")]
    if reading:
        raise BadInput(f"{reading[0]} says how to read a file: give --data FILE with it")
    source = Source(**{f.name: command[f.name] for f in dataclasses.fields(Source)})
    if config.symbols is not None:
        source = dataclasses.replace(source, symbols=config.symbols)
    market = inputs.read_market(command["data"], source, policy.features, portfolio)
    part = config.part or "test"
    if part != "all":
        market = market.split(*(np.datetime64(cut) for cut in command["cuts"]))[list(PARTS).index(part)]
    return PARTS.get(part, "all bars"), inputs.narrowed(market, config, source)


def _overlap(policy: Policy, market: Market) -> Iterator[str]:
    """A warning where the bars are not new to the policy."""
    command = policy.about.get("command")
    if command is None:
        yield "This policy does not say on which dates it was trained: only later ones are a test."
    elif inputs.first_time(market) < np.datetime64(command["cuts"][1]):
        until = np.datetime64(command["cuts"][1], "D")
        yield f"Training and selection used dates before {until}: what lies before it is no test."


def _save(book: Book, folder: Path) -> str:
    """Write the equity and the trades as CSV; what was written, in words."""
    import pandas as pd

    folder.mkdir(parents=True, exist_ok=True)
    book.to_frame().to_csv(folder / "equity.csv")
    pd.DataFrame(book.trades).to_csv(folder / "trades.csv", index=False)
    return f"{folder / 'equity.csv'} ({len(book):,} bars), {folder / 'trades.csv'} ({len(book.trades):,} trades)"


def judge(policy: Policy, market: Market, **changes: Any) -> dict[str, Book]:
    """The policy's book, and what is held against it."""
    book = backtest(policy, market, **changes)
    return {report.POLICY: book, **beside(market, book)}
