"""`jaxtrader sweep`: one training for each choice of some settings, a table of all, and the verdict on the best."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

import jaxtrader as jt
from jaxtrader.cli import config_file, flags, inputs, own_code, phrases, reporting, waiting
from jaxtrader.cli.config_file import FileSettings
from jaxtrader.cli.inputs import Values
from jaxtrader.cli.settings import (
    COMMANDS,
    INTERRUPTED,
    OK,
    BadInput,
    BadSetting,
    Failed,
    check_trials,
    of,
    resolved,
    spelt,
    sweepable,
)
from jaxtrader.cli.train_command import Plan, make_plan, plan_facts
from jaxtrader.cli.value_types import toml
from jaxtrader.cli.wording import as_given, translated
from jaxtrader.evaluation import evaluation_log, tables
from jaxtrader.evaluation.verdict import sharpe
from jaxtrader.files import FileError
from jaxtrader.ledger.cost_rates import CostRates
from jaxtrader.report.content import TextTable, number, percent
from jaxtrader.report.evidence import Evidence
from jaxtrader.run_files import CONFIG_TOML, RESULT, SWEEP, SWEEP_TABLE, TRAINED
from jaxtrader.training import interrupt
from jaxtrader.training.configurations import Configuration, SweepPlan, check_swept, combinations, plain, scored_alike
from jaxtrader.training.hold_if_unproven import trained_path
from jaxtrader.training.run_folder import find_run, folder_of_runs, make_run_dir
from jaxtrader.training.sweep import ConfigurationResult, Sweep, check_resume, run_sweep

NOT_OF_SWEEPS = ("config", "resume", "run_dir", "dry_run", "synthetic", *config_file.HOSTS)  # flags of train alone
NOT_OF_POLICIES = (*NOT_OF_SWEEPS, "quiet", "trials", "report")  # settings that make no other policy


@dataclass(frozen=True)
class SweepFile:
    """The content of a sweep file.

    Attributes:
        path: The file.
        given: The settings that all configurations share.
        named: The same settings with the names and values of the file.
        swept: The values of each swept setting, by its key.
    """

    path: Path
    given: Mapping[str, Any]
    named: FileSettings
    swept: Mapping[str, list[Any]]

    def named_with(self, swept: Mapping[str, Any]) -> FileSettings:
        """The names and values of the file, with those of swept settings."""
        return FileSettings(str(self.path), {**self.named.given, **{name: (name, x) for name, x in swept.items()}})

    @functools.cached_property
    def values(self) -> dict[str, Any]:
        """All settings of `jaxtrader train` without what is swept."""
        return resolved("train", self.given)


def described(settings: Mapping[str, Any], between: str = " ") -> str:
    """Return the settings of a configuration on one line."""
    return ", ".join(f"{name}{between}{spelt(value)}" for name, value in settings.items())


def sweep(values: Values, console: Console) -> int:
    """`jaxtrader sweep`."""
    file, run_dir = read_file(Path(values["file"])), values["run_dir"]
    check_trials(file.values)
    values = {
        "quiet": values["quiet"] or file.values["quiet"],
        "trials": values["trials"] + file.values["trials"],
        "report": values["report"] and file.values["report"],
    }
    plans = _plans(file)
    sweep_plan = _sweep_plan(file, plans)
    folder = Path(run_dir or Path("runs") / file.path.stem)
    with as_given(file.named_with(file.swept)), inputs.checked():
        if (folder / SWEEP).is_file():
            check_resume(sweep_plan, find_run(folder))
        else:
            make_run_dir(folder, "sweep")
    if not values["quiet"]:
        tables.print_facts(console, _plan_facts(file, plans, sweep_plan))
    with interrupt.ending_the_process():
        found = run_sweep(sweep_plan, folder, report_step=lambda step: None if values["quiet"] else waiting.say(step))
    if found.interrupted:
        done = f"{len(found.configurations)} of {len(plans)} configurations are finished, and the rest is saved."
        again = shlex.join(["jaxtrader", "sweep", str(file.path), *(["--run-dir", run_dir] if run_dir else [])])
        tables.print_facts(console, [("interrupted", done), ("next", again)])
        return INTERRUPTED
    if not found.trained:
        raise Failed(f"no configuration was trained to its end; the first: {found.configurations[0].failed}")
    _tell(file, found, sweep_plan, plans[found.configurations.index(found.best)], folder, values, console)
    return OK


def _tell(
    file: SweepFile, found: Sweep, sweep_plan: SweepPlan, plan: Plan, folder: Path, values: Values, console: Console
) -> None:
    """Test the best, whose plan is given, and print and write the result."""
    best, table = found.best, configuration_table(file, found)
    console.print(reporting.text_table(table))
    console.print()
    evidence = _evidence(found, sweep_plan, plan, values)
    title = f"sweep of {folder.name}: {best.name}"
    names = reporting.write_all(
        folder, evidence, title, plan.values, report=values["report"], further=[table], trained=best.folder
    )
    lines = [("best", _best(file, best)), *_failures(found), *_holding(found), *reporting.facts(evidence)]
    lines.append(("files", f"{folder}: {', '.join([SWEEP_TABLE, SWEEP, *names, RESULT])}, a folder for each"))
    following = own_code.backtest_command(best.folder, plan.values)
    if len(found.trained) > 1:
        compared = sorted(found.trained, key=lambda one: -one.score)[:2]
        following = shlex.join(["jaxtrader", "compare", *(str(one.folder) for one in compared)])
    tables.print_facts(console, [*lines, ("next", following)])


def _holding(found: Sweep) -> list[tuple[str, str]]:
    """Name the configurations that hold, since their trained policy did not beat holding on validation."""
    names = [one.name for one in found.trained if trained_path(one.folder).name == TRAINED]
    if not names:
        return []
    said = "validation is of what was trained, which did not beat holding there, so the test is of holding"
    return [("holding", f"{', '.join(names)}: {said}")]


def read_file(path: Path) -> SweepFile:
    """Read a sweep file. Raises BadInput where a key is no setting, cannot be swept, or has no list of values."""
    found = config_file.read_tables(path, str(path))
    lists = found.pop("sweep", None)
    if not isinstance(lists, dict):
        raise BadInput(f"{path} has no table [sweep]; write one, with a line such as gamma = [0.9, 0.99]")
    settings = config_file.flat(found, path)
    (given,) = flags.read_settings("train", [settings], str(path))
    for name in NOT_OF_SWEEPS:
        if name in given:
            way = ", and give --run-dir to the command" if name == "run_dir" else ""
            raise BadSetting(f"{path}: {name} is of a single run, and not of a sweep; leave it out{way}")
    if given.get("network") is not None:
        config_file.tell_code(given["network"], path)
    swept: dict[str, list[Any]] = {}
    for name, listed in lists.items():
        if not isinstance(listed, list):
            way = "" if isinstance(listed, dict) else f"; write {name} = [{toml(listed)}]"
            raise BadSetting(f"{path} [sweep]: {name} must be a list of values{way}")
    for name, listed in config_file.flat({"sweep": lists}, path).items():
        # A list without values is told below, where its name has been looked up.
        read = flags.read_settings("train", [{name: value} for value in listed or [1]], f"{path} [sweep]")
        keys = {key for one in read for key in one}
        swept |= {key: [one[key] for one in read if key in one] if listed else [] for key in keys}
    named = {config_file.key_of(name): name for name in settings}
    for name in swept:
        if name in given:
            raise BadSetting(f"{path}: {named[name]} stands twice, once in [sweep]; leave one of them out")
    try:
        check_swept(swept, sweepable())
    except ValueError as error:
        own_keys = FileSettings.of(path, {**dict.fromkeys(COMMANDS["train"].fields), **lists})
        raise BadSetting(f"{path} [sweep]: {translated(str(error), own_keys)}") from error
    return SweepFile(path, given, FileSettings.of(path, settings), swept)


def _plans(file: SweepFile) -> list[Plan]:
    """A plan of `jaxtrader train` for each configuration. What they share is read and computed once."""
    read_bars, market_of = functools.cache(inputs.read_bars), functools.cache(inputs.market_of)
    found = []
    for chosen in combinations(file.swept):
        try:
            found.append(make_plan(resolved("train", {**file.given, **chosen}), read_bars, market_of))
        except BadInput as error:
            words, at = translated(str(error), file.named_with(chosen)), described(chosen, " = ")
            where = str(file.path) if at in words else f"{file.path}, {at}"
            raise BadSetting(f"{where}: {words}") from error
    return found


def _sweep_plan(file: SweepFile, plans: list[Plan]) -> SweepPlan:
    base = file.values
    fields = [COMMANDS["train"].fields[key].name for key in file.swept]
    with inputs.checked():
        rules, costs = jt.Rules(**of(jt.Rules, base)), jt.Costs(**of(CostRates, base))
        found = []
        for chosen, plan in zip(combinations(file.swept), plans, strict=True):
            env, _ = inputs.trained(plan.trainer)
            changes = scored_alike(env.rules, rules, costs, fields)
            files = {CONFIG_TOML: config_file.text("train", plan.values)}
            found.append(Configuration(chosen, plan.trainer, plan.parts["test"], changes, files))
    fixed = {name: value for name, value in base.items() if name not in (*NOT_OF_POLICIES, *file.swept)}
    return SweepPlan(found, plain(file.swept), plain(fixed | inputs.absolute(base, "data", "init_from", "network")))


def _plan_facts(file: SweepFile, plans: list[Plan], sweep_plan: SweepPlan) -> list[tuple[str, str]]:
    """The first lines: data, parts, and what is swept."""
    first, configuration = plans[0], sweep_plan.configurations[0]
    facts = list(plan_facts(first))
    shown = [fact for fact in facts if fact[0] in ("data", *first.parts)]
    env, _ = inputs.trained(first.trainer)
    scored = dataclasses.replace(env, **configuration.changes)
    values = " x ".join(f"{name} {' | '.join(map(spelt, listed))}" for name, listed in file.swept.items())
    seeds = f", {first.trainer.seeds} seeds each" if first.trainer.seeds > 1 else ""
    charged = "all are scored at these, whatever they were trained at: " if configuration.changes else ""
    return [
        *shown,
        ("costs", charged + phrases.rules(scored)),
        ("sweep", f"{len(plans)} configurations{seeds}: {values}"),
        *(fact for fact in facts if fact[0] in ("training", "note")),
    ]


def configuration_table(file: SweepFile, found: Sweep) -> TextTable:
    """A row for each configuration, the best on validation first."""
    columns = ["", *file.swept, "valid Sharpe", "spread", "test Sharpe", "return", "exposure", "turnover"]
    ordered = sorted(found.configurations, key=lambda one: -one.score if one.failed is None else float("inf"))
    rows = []
    for one in ordered:
        figures = ["failed", "", "", "", "", ""]
        if one.test is not None:
            of_test = one.test.metrics
            figures = [number(one.score), number(one.spread), number(sharpe(one.test).value)]
            figures += [percent(of_test["total_return"]), number(of_test["mean_exposure"])]
            figures.append(number(of_test["turnover" if one.test.spans_a_year else "period_turnover"]))
        rows.append([one.name, *(spelt(value) for value in one.settings.values()), *figures])
    note = (
        "The best is chosen by the mean Sharpe ratio of its seeds on validation. The spread is their sample deviation. "
        "The test chooses nothing: its figures are of the policy that trades the mean of all seeds' targets."
    )
    return TextTable("Configurations", columns, rows, note, frozenset({0}))


def _evidence(found: Sweep, sweep_plan: SweepPlan, plan: Plan, values: Values) -> Evidence:
    """Gather the evidence of the best. All configurations count as tries on the bars of the test."""
    best = found.best
    for one, configuration in zip(found.configurations, sweep_plan.configurations, strict=True):
        if one is best or one.test is None or configuration.test is None:
            continue
        evaluation = evaluation_log.evaluation_of(
            configuration.test, one.test, one.policy_path.read_bytes(), str(one.folder)
        )
        with contextlib.suppress(FileError):  # which the evaluation of the best reports
            evaluation_log.record(folder_of_runs(one.folder), evaluation)
    changes = sweep_plan.configurations[found.configurations.index(best)].changes
    evidence = reporting.evaluate(best.folder, plan.parts, values, **changes)
    return dataclasses.replace(evidence, overfitting=found.overfitting)


def _best(file: SweepFile, best: ConfigurationResult) -> str:
    spread = f", with a spread of {best.spread:.2f} over {len(best.seeds)} seeds" if len(best.seeds) > 1 else ""
    return f"{best.name} ({described(best.settings)}): Sharpe ratio {best.score:.2f} on validation{spread}"


def _failures(found: Sweep) -> list[tuple[str, str]]:
    return [
        ("failed", translated(f"{one.name}: {one.failed}")) for one in found.configurations if one.failed is not None
    ]
