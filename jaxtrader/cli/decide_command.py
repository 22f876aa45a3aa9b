"""`jaxtrader decide`: what a trained policy wants at the last bar of a file. The run's folder keeps its account."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

import jaxtrader as jt
from jaxtrader.agents.policy import Policy
from jaxtrader.cli import finished, inputs, phrases
from jaxtrader.cli.command_settings import DecideSettings, Source
from jaxtrader.cli.inputs import Values
from jaxtrader.cli.settings import OK, BadInput, build, of
from jaxtrader.cli.wording import translated
from jaxtrader.live.decision import exposure_text
from jaxtrader.live.live import Live
from jaxtrader.live.recent import OtherScale, up_to
from jaxtrader.market.bar_checks import PRICES, format_time
from jaxtrader.market.clock import wall_clock
from jaxtrader.market.features import resolve
from jaxtrader.market.market import long_enough
from jaxtrader.market.share_splits import find_splits
from jaxtrader.market.shared_rows import bars_of_rows_that_are_over
from jaxtrader.training.run_folder import fold_folders

FOLDER = "live"  # of the accounts, in that of the run
MOST_LIKELY = 2  # positions whose probability is told, where the target is none of them


def decide(values: Values, console: Console) -> int:
    """`jaxtrader decide`. A line for each account, and each account is kept."""
    wanted = build(DecideSettings, values)
    with inputs.checked():
        path, now = Path(wanted.run), _now()
        policy = _policy(path)
        histories, notes = _histories(policy, wanted, values, now)
        accounts = [histories] if policy.portfolio else [(each,) for each in histories]
        positions = _positions(wanted.position, histories)
        folder = (path if path.is_dir() else path.parent) / FOLDER
        lives, others = {}, sorted(path.stem for path in folder.glob("*.live"))
        for own in accounts:
            name = "portfolio" if policy.portfolio else own[0].symbols[0]
            file = folder / f"{re.sub(r'[^A-Za-z0-9_.-]', '_', name)}.live"
            if others and file.stem not in others:
                notes.append(f"{name}: A new account begins. The run keeps those of {', '.join(others)}.")
            lives[file] = _account(policy, own, file, positions)
    for file, live in lives.items():
        live.save(file)
        if wanted.json:
            print(json.dumps(_record(live, now) | {"notes": notes}, allow_nan=False))
        else:
            print(_line(live, now, named=len(lives) > 1))
            if _is_dated_today(live, now):
                name = ", ".join(live.symbols) if len(lives) > 1 else "Note"
                notes.append(
                    f"{name}: The last bar is dated today. Decide again when its session is over, if it is not."
                )
    if not wanted.json:
        for note in notes:
            console.print(note, style="dim", highlight=False, soft_wrap=True)
    return OK


def _now() -> np.datetime64:
    return np.datetime64(datetime.now(UTC).replace(tzinfo=None), "ns")


def _policy(path: Path) -> Policy:
    if path.is_dir() and finished.is_walk_forward(path):
        last = fold_folders(path)[-1]
        raise BadInput(f"{path} is a walk-forward: give one of its policies, as in `jaxtrader decide {last}`")
    policy = jt.load_policy(finished.policy_of(path))
    if not policy.trades:
        raise BadInput(f"{path} is no policy of a market, so it has no bars to decide on")
    return policy


def _histories(
    policy: Policy, wanted: DecideSettings, values: Values, now: np.datetime64
) -> tuple[tuple[jt.Bars, ...], list[str]]:
    """Return the bars that are over, and notes on what was left out."""
    command = inputs.asked_of(policy, wanted.run) or {}
    if wanted.data is None and (not command or command["synthetic"] is not None):
        raise BadInput(f"{wanted.run} was not trained on a file; give --data FILE with the bars up to now")
    data = command["data"] if wanted.data is None else wanted.data
    source = Source(**{**of(Source, command), **of(Source, values)})
    loaded, notes = inputs.read_bars(data, source), []
    histories = tuple(up_to(bars, now) for bars in loaded)
    for before, bars in zip(loaded, histories, strict=True):
        if len(bars) < len(before):
            notes.append(f"{bars.symbols[0]}: {len(before) - len(bars)} bar at the end is not over yet, and left out.")
        notes += [f"{bars.symbols[0]}: {translated(note)}" for note in bars.notes if note.startswith("`repair=")]
    if policy.portfolio and all(map(len, histories)):
        rows = bars_of_rows_that_are_over(histories, now)
        for bars, kept in zip(histories, rows, strict=True):
            if kept < len(bars):
                notes.append(f"{bars.symbols[0]}: The last bar waits for the bars of its row, which is not over yet.")
        histories = tuple(up_to(bars, bars.times[kept - 1]) for bars, kept in zip(histories, rows, strict=True))
    if not policy.portfolio:
        kept, short = long_enough(histories, tuple(map(resolve, policy.features)), policy.window)
        histories, notes = tuple(kept), notes + short
    return histories, notes + [note for bars in histories for note in _split_notes(bars, policy.bars_needed)]


def _split_notes(bars: jt.Bars, seen: int) -> list[str]:
    """A note where one of the bars that a decision sees looks like the first after a split."""
    columns = {name: getattr(bars, name)[:, 0] for name in (*PRICES, "volume")}
    return [
        f"{bars.symbols[0]}: {format_time(wall_clock(bars.times[split.row : split.row + 1], bars.tz)[0])} looks like a "
        f"{split} for which the prices were not adjusted; give adjusted prices."
        for split in find_splits(bars.times, columns)
        if split.row >= len(bars) - seen
    ]


def _positions(given: tuple[float, ...] | None, histories: Sequence[jt.Bars]) -> dict[str, float] | None:
    """Return the exposure that is held of each symbol. None: --position was not given."""
    if given is None:
        return None
    names = [bars.symbols[0] for bars in histories]
    if len(given) != len(names):
        raise BadInput(
            f"`position` has {len(given)} number{'s' * (len(given) != 1)}, and the data have {len(names)} "
            f"symbol{'s' * (len(names) != 1)}: give one for each of {', '.join(names)}, or choose with `symbols`"
        )
    return dict(zip(names, given, strict=True))


def _account(policy: Policy, own: Sequence[jt.Bars], file: Path, positions: dict[str, float] | None) -> Live:
    """The account that was kept, at the last bar, or one that begins there."""
    if positions is not None or not file.exists():
        position = None if positions is None else {bars.symbols[0]: positions[bars.symbols[0]] for bars in own}
        return policy.live(own, position)
    try:
        live = policy.resume_live(file, history=own)
        live.catch_up(own)
    except OtherScale as error:
        raise BadInput(
            f"{error.fault}; give adjusted prices, or begin anew with `position`, as in `position=0`"
        ) from error
    except (ValueError, jt.FileError) as error:
        raise BadInput(f"{error}; `position`, as in `position=0`, begins anew") from error
    return live


def _record(live: Live, now: np.datetime64) -> dict[str, Any]:
    """Return the line of an account for a script."""
    return {
        "symbols": list(live.symbols),
        "bar": f"{live.time.astype('datetime64[s]')}Z",
        "decided": live.decision.to_dict()["time"],
        "exposure": live.exposure,
        **{name: live.decision.to_dict()[name] for name in ("target", "probabilities", "value")},
        "equity": live.equity,
        "age_seconds": float((now - live.time) / np.timedelta64(1, "s")),
        "next_bar": f"{live.next_bar_time.astype('datetime64[s]')}Z",
        "stale": _is_stale(live, now),
        "dated_today": _is_dated_today(live, now),
    }


def _is_stale(live: Live, now: np.datetime64) -> bool:
    """Return whether the next bar is missing: it was due more than a bar's length ago."""
    return bool(now > live.next_bar_time + live.spacing)


def _is_dated_today(live: Live, now: np.datetime64) -> bool:
    """Return whether the last bar may not be over: it lasts a day or longer, and its time is the date of today."""
    local = wall_clock(np.array([live.time, now]), live.tz)
    bar, today = local.astype("datetime64[D]")
    return bool(live.spacing >= np.timedelta64(1, "D") and local[0] == bar and bar == today)


def _line(live: Live, now: np.datetime64, named: bool) -> str:
    """Return the line of an account for a person."""
    decision = live.decision
    name = f"{live.symbols[0]} " if named else ""
    age = phrases.span(float((now - live.time) / np.timedelta64(1, "s")))
    text = f"{name}{_shown(live.time, live)} hold {exposure_text(live.exposure)}"
    text += f" -> target {exposure_text(decision.target)}{_likely(live)}, the bar is {age} old"
    if decision.time != live.time:
        text += f", decided at {_shown(decision.time, live)}"
    if live.ruined:
        text += "; the account is ruined"
    if _is_stale(live, now):
        text += f"; it is stale: the next was due at {_shown(live.next_bar_time, live)}, unless the market was shut"
    return text


def _shown(time: np.datetime64, live: Live) -> str:
    local = wall_clock(np.array([time]), live.tz)[0]
    return np.datetime_as_string(local, unit="m").replace("T", " ")


def _likely(live: Live) -> str:
    """The probability of the target, or of the most likely positions where the target is a mean of several seeds'."""
    shares = live.decision.probabilities
    if live.policy.holds_because is not None:
        return " (it holds)"
    if shares is None:
        return ""
    if len(live.policy.members) == 1 and isinstance(live.decision.target, float):
        return f" (p {shares[live.decision.target]:.2f})"
    likely = sorted(shares, key=shares.__getitem__, reverse=True)[:MOST_LIKELY]
    return f" (p {', '.join(f'{shares[position]:.2f} of {position:g}' for position in likely)})"
