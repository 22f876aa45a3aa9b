"""A finished run: its policy, and the parts of its data, read again as the run had them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import jaxtrader as jt
from jaxtrader.agents.policy import Policy
from jaxtrader.cli import config_file, flags, inputs, waiting
from jaxtrader.cli.command_settings import MarketSettings, Source
from jaxtrader.cli.config_file import FileSettings
from jaxtrader.cli.inputs import Values
from jaxtrader.cli.reporting import identity_of, title_of_walk_forward
from jaxtrader.cli.settings import PARTS, BadInput, build, of, resolved
from jaxtrader.cli.synthetic_command import made_by
from jaxtrader.cli.walk_forward_command import PART, plan_walk_forward
from jaxtrader.cli.wording import as_given
from jaxtrader.evaluation.backtest import with_room
from jaxtrader.evaluation.succession import Succession
from jaxtrader.run_files import CONFIG_TOML, POLICY, SWEEP
from jaxtrader.training.run_folder import fold_folders, is_run
from jaxtrader.training.walk_forward import FoldPlan


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """A run after its training.

    Attributes:
        folder: The folder of the run.
        policy: The policy of a training or of one fold, or the policies of all folds of a walk-forward.
        parts: The bars of each part, by its name, in the order of time. The last part is judged.
        settings: The settings of the run.
        identity: The bytes that identify the policy among the tries.
    """

    folder: Path
    policy: Policy | Succession
    parts: Mapping[str, jt.Market]
    settings: Values
    identity: bytes

    @property
    def judged(self) -> jt.Market:
        """The bars of the last part."""
        return list(self.parts.values())[-1]

    @property
    def title(self) -> str:
        """The title of its report."""
        return title_of_walk_forward(self.folder) if isinstance(self.policy, Succession) else self.folder.name


def read(folder: Path, given: Values) -> FinishedRun:
    """Read a run's policy and its data.

    Args:
        folder: The folder of a run of `jaxtrader train` or `jaxtrader walk-forward`.
        given: `data`, where the data are now, and `MarketSettings`. What is None is the run's own.

    Raises:
        BadInput: the folder holds no finished run of these commands, or its data are gone or others.
    """
    with inputs.checked():
        if not folder.is_dir():
            raise BadInput(f"{folder} is no folder of a run; give one that `jaxtrader train` or `walk-forward` wrote")
        if is_walk_forward(folder):
            return _walk_forward(folder, given)
        return _training(folder, given) if fold_of(folder) is None else read_fold(folder, given)


def is_walk_forward(folder: Path) -> bool:
    """Return whether a folder holds a walk-forward."""
    return bool(fold_folders(folder))


def fold_of(path: Path) -> tuple[Path, int] | None:
    """The folder of the walk-forward that a policy or a run folder is a part of, and the number of its fold."""
    for place in (path, *path.parents)[:3]:  # of fold-2, its policy.pkl, its seed-0, and the policy.pkl of that
        if place in fold_folders(place.parent) and (place.parent / CONFIG_TOML).is_file():
            return place.parent, int(place.name.removeprefix("fold-"))
    return None


def read_fold(path: Path, given: Values) -> FinishedRun:
    """Read one policy of a walk-forward, as `read` does. Its parts are those of its fold."""
    found = fold_of(path)
    assert found is not None
    folder, number = found
    file = policy_of(path)
    policy = jt.load_policy(file)
    settings, plans = _planned(folder, given)
    if number > len(plans):
        raise BadInput(f"{folder} has {len(plans)} folds by its {CONFIG_TOML}, and no {path.name}")
    fold = plans[number - 1].fold
    _check_bars(policy, fold.train, file.parent, settings)
    parts = {"train": fold.train, "valid": fold.valid, "test": fold.test}
    named = {PARTS[name]: part for name, part in parts.items() if part is not None}
    return FinishedRun(file.parent, policy, named, settings, file.read_bytes())


def _training(folder: Path, given: Values) -> FinishedRun:
    path = folder / POLICY
    policy = jt.load_policy(policy_of(folder))
    command = inputs.asked_of(policy, path)
    if command is None:
        raise BadInput(f"{folder} was not trained by `jaxtrader train` and does not say its data")
    if command["synthetic"] is not None:
        raise BadInput(made_by(command, folder))
    settings = {**command, **_given(given)}
    _check_data(settings, folder)
    parts = parts_of(own_market(policy, settings), settings)
    _check_bars(policy, parts[PARTS["train"]], folder, settings)
    parts = {name: with_room(policy.environment(part), name) for name, part in parts.items()}
    return FinishedRun(folder, policy, parts, settings, path.read_bytes())


def own_market(policy: Policy, command: Values) -> jt.Market:
    """Return all bars of the command that trained a policy."""
    waiting.say_reading(command["data"])
    source, settings = build(Source, command), of(MarketSettings, command)
    return inputs.read_market(command["data"], source, policy.features, policy.portfolio, **settings)


def parts_of(market: jt.Market, command: Values) -> dict[str, jt.Market]:
    """Cut these bars into their parts, and return them by name."""
    cuts = [np.datetime64(cut) for cut in command["cuts"]]
    return dict(zip(PARTS.values(), market.split(*cuts), strict=True))


def _walk_forward(folder: Path, given: Values) -> FinishedRun:
    settings, plans = _planned(folder, given)
    paths = [folder / f"fold-{i}" / POLICY for i in range(1, len(plans) + 1)]
    if missing := [each for each in paths if not each.is_file()]:
        raise BadInput(
            f"{missing[0].parent} has no {POLICY}: the walk-forward is unfinished; `jaxtrader walk-forward "
            f"--resume {folder}` goes on with it"
        )
    policies = tuple(map(jt.load_policy, paths))
    for plan, policy in zip(plans, policies, strict=True):
        _check_bars(policy, plan.fold.train, folder, settings)
    folds = [plan.fold for plan in plans]
    policy = Succession(policies, tuple(fold.test for fold in folds), tuple(fold.valid for fold in folds))
    return FinishedRun(folder, policy, {PART: policy.market}, settings, identity_of(paths))


def _planned(folder: Path, given: Values) -> tuple[Values, list[FoldPlan]]:
    """Return the settings of a walk-forward, and its folds, which are cut anew."""
    path = folder / CONFIG_TOML
    if not path.is_file():
        raise BadInput(f"{folder} has no {path.name}, so `jaxtrader walk-forward` did not begin it")
    in_file = config_file.flat(config_file.read_tables(path, str(path)), path)
    (written,) = flags.read_settings("walk-forward", [in_file], str(path))
    settings = resolved("walk-forward", {**written, **_given(given)})
    _check_data(settings, folder)
    waiting.say_reading(settings["data"])
    of_file = FileSettings.of(path, {name: value for name, value in in_file.items() if name not in _given(given)})
    with as_given(of_file), inputs.checked():
        # The folds do not depend on the network, and nothing is trained that would be stopped or logged. A run folder
        # may be a stranger's, so no code that it names is run.
        unneeded = dict.fromkeys(("network", "patience", "log_to"))
        return settings, plan_walk_forward({**settings, "quiet": True, **unneeded}).plans


def _given(given: Values) -> Values:
    return {name: given[name] for name in ("data", "periods_per_year") if given.get(name) is not None}


def policy_of(path: Path) -> Path:
    """Return the policy file in a folder, or the file itself. Raises BadInput where there is none."""
    file = path / POLICY if path.is_dir() else path
    if file.is_file():
        return file
    if not path.exists():
        raise BadInput(f"{path} is not there; give the folder of a run, or a policy file")
    if file == path:  # a device or a pipe, which loading refuses
        return file
    if (path / SWEEP).is_file():
        raise BadInput(f"{path} is of a sweep; give the folder of one of its runs, such as {path / 'config-1'}")
    if is_run(path):
        raise BadInput(
            f"{path} has no policy yet: its training is unfinished; `jaxtrader train --resume {path}` goes on"
        )
    raise BadInput(f"{path} holds no run, which would have a {POLICY}; check the path")


def _check_data(settings: Values, folder: Path) -> None:
    """Raise BadInput where the data of a run are not where they were."""
    data = settings["data"]
    if data is not None and not Path(data).exists():
        raise BadInput(f"there is no {data}; say where the data of {folder} are: jaxtrader report {folder} --data FILE")


def _check_bars(policy: Policy, train: jt.Market, folder: Path, settings: Values) -> None:
    """Raise BadInput where the data have other bars of training than those of the run."""
    told = policy.about.get("data", {})
    known = told.get("fingerprint", train.fingerprint)
    if train.fingerprint != known:
        raise BadInput(
            f"{settings['data']} is not the data of {folder}: its bars of training are {train.describe()}, and were "
            f"{told.get('train', 'unknown')}; give the unchanged file as `data`, or train anew"
        )
