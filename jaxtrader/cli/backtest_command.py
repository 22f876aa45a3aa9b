"""`jaxtrader backtest`: a trained policy on the test part of its own data, or on another file."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

import jaxtrader as jt
from jaxtrader.agents.policy import Policy
from jaxtrader.cli import finished, inputs, phrases, reporting
from jaxtrader.cli.command_settings import BacktestData, MarketSettings, Source
from jaxtrader.cli.inputs import Values
from jaxtrader.cli.settings import OK, PARTS, BadInput, build, choices, flag, of
from jaxtrader.cli.synthetic_command import made_by
from jaxtrader.envs.env_settings import EnvSettings
from jaxtrader.evaluation import tables
from jaxtrader.evaluation.backtest import with_room
from jaxtrader.evaluation.baselines import EXPOSURE_MATCHED, break_even
from jaxtrader.evaluation.succession import Succession
from jaxtrader.ledger.cost_rates import CostRates
from jaxtrader.market.clock import wall_clock
from jaxtrader.report.evidence import Evidence, judge
from jaxtrader.run_files import RESULT
from jaxtrader.setting_checks import setting
from jaxtrader.training.run_folder import fold_folders, refuse_full


def backtest_policy(values: Values, console: Console) -> int:
    """`jaxtrader backtest`. What is not among the settings stays as it was in training."""
    wanted = build(BacktestData, values)
    with inputs.checked():
        path = Path(wanted.run)
        policy, identity, name, market, unseen = _subject(path, wanted, values)
        inputs.check_take_profit(values)
        changes = {label: _changes(policy, chosen) for label, chosen in choices(CostRates, values).items()}
        envs = [policy.environment(market, **each) for each in changes.values()]
        market = with_room(envs[0], name)
        if wanted.save is not None:
            refuse_full(Path(wanted.save))
    *others, (label, last) = changes.items()
    rows: dict[str, tables.Part] = {other: judge(policy, market, **given) for other, given in others}
    folder = path if path.is_dir() else path.parent
    evidence = reporting.evaluate_policy(policy, identity, folder, {name: market}, values, **last)
    costs = "those of each row; " * (len(envs) > 1) + phrases.rules(envs[-1])
    facts = [("policy", str(path)), ("data", phrases.data(market)), ("costs", costs), *phrases.notes(market.notes)]
    tables.print_facts(console, [*facts, *(("note", note) for note in _overlap(policy, market, unseen))])
    console.print()
    if rows:
        rows |= {label: evidence.parts[name]}
        console.print(tables.rows_table(rows))
        console.print(Text("hold: buy-and-hold at the same costs. All returns are after costs.", style="dim"))
        console.print()
        facts = [("costs", f"what follows is with {label}"), *reporting.facts(evidence)]
        tables.print_facts(console, [*_saved(evidence, f"{path}: {name}, {label}", values, rows), *facts])
        return OK
    _print_one(evidence, f"{path}: {name}", values, console)
    return OK


def _subject(
    path: Path, wanted: BacktestData, values: Values
) -> tuple[Policy | Succession, bytes, str, jt.Market, np.datetime64 | None]:
    """Return the policy, its identity, the name and bars of the part, and the moment from which on bars are a test."""
    source = build(Source, values)
    own = {"data": wanted.data, "part": wanted.part, "start": wanted.start, "end": wanted.end}
    given = [name for name, value in {**own, **of(Source, values)}.items() if value is not None]
    if finished.is_walk_forward(path):
        if given:
            last = fold_folders(path)[-1]
            raise BadInput(
                f"{path} is a walk-forward, whose policies trade their own tests: leave out {setting(given[0])}, or "
                f"give one of its policies, as in `jaxtrader backtest {last} {flag(given[0])} ...`"
            )
        run = finished.read(path, values)
        return run.policy, run.identity, *next(iter(run.parts.items())), None
    if wanted.data is None and finished.fold_of(path) is not None:
        return _of_fold(path, wanted, source, values)
    file = finished.policy_of(path)
    policy = jt.load_policy(file)
    name, market = _asked(wanted, source, of(MarketSettings, values), policy)
    command = inputs.asked_of(policy, path)
    # A synthetic market's later bars are new ones.
    later = command["cuts"][1] if command is not None and command["synthetic"] is None else None
    return policy, file.read_bytes(), name, market, later and np.datetime64(later)


def _of_fold(
    path: Path, wanted: BacktestData, source: Source, values: Values
) -> tuple[Policy, bytes, str, jt.Market, np.datetime64]:
    """Return what `_subject` does for one policy of a walk-forward, on a part of its own fold."""
    _check_reads_nothing(source)
    run = finished.read_fold(path, values)
    name = PARTS.get(wanted.part or "test")
    if name not in run.parts:
        has = ", ".join(key for key, value in PARTS.items() if value in run.parts)
        raise BadInput(f"{setting('part', wanted.part)}: the bars of {path} have the parts {has}; give one of them")
    assert isinstance(run.policy, Policy)
    market = inputs.narrowed(run.parts[name], wanted.start, wanted.end, build(Source, run.settings))
    return run.policy, run.identity, name, market, inputs.first_time(run.parts[PARTS["test"]])


def _check_reads_nothing(source: Source) -> None:
    """Raise BadInput where a setting says how a file is read, and no file was given."""
    for name, value in phrases.changed(source):
        raise BadInput(f"{setting(name, value)} says how to read a file: give --data FILE with it")


def _changes(policy: Policy | Succession, values: Values) -> dict[str, Any]:
    """Return the settings that a backtest has instead of those of training."""
    costs = policy.costs.middle
    return {
        "costs": costs.replace(**of(CostRates, values)),
        "rules": policy.rules.replace(**of(jt.Rules, values)),
        **of(EnvSettings, values),
    }


def _print_one(evidence: Evidence, title: str, values: Values, console: Console) -> None:
    """Print and save what there is to say of one result."""
    reporting.print_results(evidence, console)
    (part,) = evidence.parts.values()
    result = part[tables.POLICY]
    facts = [("trades", tables.trades_line(result))]
    facts.append(("break-even", tables.break_even_line(break_even(result, part[EXPOSURE_MATCHED]))))
    tables.print_facts(console, [*facts, *_saved(evidence, title, values), *reporting.facts(evidence)])


def _saved(
    evidence: Evidence, title: str, values: Values, costs: Mapping[str, tables.Part] | None = None
) -> list[tuple[str, str]]:
    """Save what was asked for, and say where. `costs` are the results under several costs."""
    if values.get("save") is None:
        return []
    folder, report = Path(values["save"]), values.get("report", True)
    written = reporting.write_all(folder, evidence, title, values, report=report, costs=costs)
    return [("saved", f"{folder}: {', '.join([*written, RESULT])}")]


def _asked(wanted: BacktestData, source: Source, given: Values, policy: Policy) -> tuple[str, jt.Market]:
    """Return the name of the bars to test on, and the bars. `given` are `MarketSettings`."""
    command = inputs.asked_of(policy, wanted.run)
    if wanted.data is not None:
        if wanted.part is not None:
            raise BadInput(
                f"{setting('part', wanted.part)} is of the data of training; with `data` use `start` and `end`"
            )
        given = {"delisted_after": policy.delisted_after, **given}
        market = inputs.read_market(wanted.data, source, policy.features, policy.portfolio, **given)
        return Path(wanted.data).name, inputs.narrowed(market, wanted.start, wanted.end, source)
    if command is None:
        raise BadInput(f"{wanted.run} was not trained by this command and does not say its data; give --data FILE")
    if command["synthetic"] is not None:
        raise BadInput(made_by(command, Path(wanted.run)))
    _check_reads_nothing(dataclasses.replace(source, symbols=None))
    command = {**command, **given, "symbols": source.symbols or command.get("symbols")}
    name, market = PARTS.get(wanted.part or "test", "all bars"), finished.own_market(policy, command)
    if wanted.part != "all":
        market = finished.parts_of(market, command)[name]
    return name, inputs.narrowed(market, wanted.start, wanted.end, build(Source, command))


def _overlap(policy: Policy | Succession, market: jt.Market, unseen: np.datetime64 | None) -> Iterator[str]:
    """A warning where the bars are not new to the policy. `unseen` is the moment from which on they are."""
    if isinstance(policy, Succession):
        return
    if unseen is None:
        if (policy.about.get("command") or {}).get("synthetic") is None:
            yield "This policy does not say on which dates it was trained: only later ones are a test."
    elif inputs.first_time(market) < unseen:
        until = wall_clock(np.array([unseen], "datetime64[ns]"), market.tz)[0].astype("datetime64[D]")
        yield f"Training and selection used dates before {until}: what lies before it is no test."
