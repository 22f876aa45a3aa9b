"""Counts how often bars have been looked at. The best of many tries on the same bars is good by chance.

`looks.jsonl` beside the runs has one line for each evaluation, and is only ever appended to. Evaluations of the same
bars belong together, whatever the file that the bars came from.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from jaxtrader.evaluation import statistics
from jaxtrader.evaluation.baselines import rows_of
from jaxtrader.evaluation.result import BacktestResult
from jaxtrader.files import FileError
from jaxtrader.market.market import Market

NAME = "looks.jsonl"
BEGINS = b'{"bars": "'  # each line


@dataclass(frozen=True)
class Look:
    """One evaluation.

    Attributes:
        bars: a digest of the symbols, times and closes that were evaluated.
        policy: a digest of what was evaluated. The same policy twice is one trial.
        sharpe: of a bar, over cash. None where it is undefined.
        run: where it came from, for people.
        time: when, in UTC.
    """

    bars: str
    policy: str
    sharpe: float | None
    run: str
    time: str


@dataclass(frozen=True)
class Trials:
    """What was tried on the same bars.

    Attributes:
        looks: evaluations of these bars, the last one included.
        count: different policies among them, and those made elsewhere.
        variance: of the Sharpe ratios of a bar over the policies, and at least that of chance, 1 / bars.
    """

    looks: int
    count: int
    variance: float


def look_at(market: Market, result: BacktestResult, policy: bytes, run: str) -> Look:
    """Describe the evaluation of a policy.

    Args:
        market: that the result was run on.
        result: of one symbol, or combined.
        policy: the bytes that identify what was evaluated, such as those of a policy file.
        run: where it came from, for people.
    """
    bars = hashlib.sha256()
    for member in list(result.by_symbol.values()) or [result]:
        bars.update(",".join(member.symbols).encode())
        bars.update(np.ascontiguousarray(member.times.astype("datetime64[ns]")).tobytes())
        # Float32, so that digits lost in one export make no other data of the same bars.
        bars.update(np.ascontiguousarray(market.close[rows_of(market, member)], np.float32).tobytes())
    ratio = statistics.sharpe_ratio(result.excess_returns)
    return Look(
        bars=bars.hexdigest()[:24],
        policy=hashlib.sha256(policy).hexdigest()[:24],
        sharpe=ratio if math.isfinite(ratio) else None,
        run=run,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def record(folder: Path, look: Look) -> list[Look]:
    """Append a look to the file in a folder of runs, and return all looks at the same bars, the new one last.

    Raises:
        FileError: the file cannot be written, or holds something else.
    """
    path = folder / NAME
    earlier = read(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # One write at the end of the file, so that two processes do not mix their lines.
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            size = os.fstat(handle).st_size
            is_cut = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
            os.write(handle, ("\n" * is_cut + json.dumps(dataclasses.asdict(look)) + "\n").encode())
        finally:
            os.close(handle)
    except OSError as error:
        raise FileError(
            f"cannot write {path}: {error.strerror or error}; choose a run folder where you may write"
        ) from error
    return [one for one in (*earlier, look) if one.bars == look.bars]


def read(path: Path) -> list[Look]:
    """Return all looks of a file. A file that does not exist has none.

    Raises:
        FileError: it cannot be read, or a line is not a look. The half line of a process that was killed while it
            wrote is passed over.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror or error}; check your permission") from error
    found = []
    for row, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            look = Look(**json.loads(line))
            number = look.sharpe is None or (isinstance(look.sharpe, float) and math.isfinite(look.sharpe))
            if not number or not all(isinstance(x, str) for x in (look.bars, look.policy, look.run, look.time)):
                raise ValueError(line)
        except (ValueError, TypeError, RecursionError) as error:
            if line.startswith(BEGINS) and not line.rstrip().endswith(b"}"):
                continue
            raise FileError(
                f"{path}, line {row} is no record of jaxtrader; another program wrote it, so move the file away"
            ) from error
        found.append(look)
    return found


def trials(looks: Sequence[Look], bars: int, elsewhere: int = 0) -> Trials:
    """Count the policies that were tried on the same bars.

    Args:
        looks: all looks at these bars.
        bars: how many there are.
        elsewhere: trials that this file does not know of.

    Raises:
        ValueError: `elsewhere` is below 0.
    """
    if elsewhere < 0:
        raise ValueError(f"trials {elsewhere} must be 0 or more")
    ratios = {look.policy: look.sharpe for look in looks}
    known = [ratio for ratio in ratios.values() if ratio is not None]
    # Tries of one idea resemble each other. The spread of a few of them says too little of what chance does.
    variance = max(float(np.var(known, ddof=1)) if len(known) > 1 else 0.0, 1 / bars)
    return Trials(len(looks), len(ratios) + elsewhere, variance)
