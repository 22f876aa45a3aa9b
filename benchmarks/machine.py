"""What the benchmarks share: a line about the machine, medians, a table on the terminal and a JSON file beside it."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import jaxtrader

# The processor stays known beside an accelerator: single paths are simulated there.
PLATFORMS = {"cpu": "cpu", "gpu": "cuda,cpu", "tpu": "tpu,cpu"}
# Tests write elsewhere.
RESULTS = Path(os.environ.get("BENCHMARK_RESULTS") or Path(__file__).parent / "results")


def describe() -> dict[str, Any]:
    """Processor, cores, device and versions: a figure without them says nothing."""
    import jax

    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "device": jax.devices()[0].device_kind,
        "python": platform.python_version(),
        **{name: version(name) for name in ("jax", "flax", "optax")},
        "jaxtrader": jaxtrader.__version__,
        **commit(),
    }


def commit() -> dict[str, str]:
    """The checkout's commit, with "+" where it was changed since. Nothing outside a checkout."""
    git = ("git", "-C", str(Path(__file__).parent))
    try:
        known = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD"], capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {"commit": known.stdout.strip() + "+" * (changed.returncode != 0)}


class Hang(BaseException):
    """A try took too long."""


@contextlib.contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise Hang in what takes longer than so many seconds."""

    def stop(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def arguments(about: str, quick: str = "tiny sizes: only shows that the script runs") -> argparse.ArgumentParser:
    """A parser with `--quick` and `--device`, described by the first line of a script's docstring."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--device", choices=PLATFORMS, help="where JAX computes; default its own choice")
    return parser


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The arguments. JAX computes on `--device` from here on, also in processes that are started from here."""
    given = parser.parse_args()
    if given.device:
        import jax

        os.environ["JAX_PLATFORMS"] = PLATFORMS[given.device]
        jax.config.update("jax_platforms", PLATFORMS[given.device])
        try:
            jax.devices()
        except RuntimeError as error:
            parser.error(f"--device {given.device}: JAX finds none here ({error}); install jax for it, or leave it out")
    return given


def report(
    name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], facts: Mapping[str, Any], quick: bool
) -> None:
    """Print a table with the machine, and write both to `NAME.json`, or `NAME_quick.json`, in RESULTS."""
    name += "_quick" * quick
    show(name, columns, rows, facts)
    Console().print(f"written: {write(name, columns, rows, facts)}", highlight=False)


def show(name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], facts: Mapping[str, Any]) -> None:
    """Print a table, the machine and the facts."""
    table = Table(title=name, title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right")
    for row in rows:
        table.add_row(*map(_cell, row))
    console = Console(width=max(100, Console().width))
    if not console.is_terminal:  # in a file a wide table is read better than one whose words are broken
        wide = Console(width=1_000)
        console = Console(width=max(console.width, wide.measure(table).maximum))
    console.print(table)
    console.print(", ".join(f"{k} {v}" for k, v in describe().items()), highlight=False)
    for key, value in facts.items():
        console.print(f"{key}: {value}", highlight=False)


def _cell(x: Any) -> str:
    if not isinstance(x, float):
        return str(x)
    return f"{x:,.3g}" if abs(x) < 1000 else f"{x:,.0f}"


def write(name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], facts: Mapping[str, Any]) -> Path:
    """Write `NAME.json` in RESULTS with the rows and the machine. Return its path."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    found = [dict(zip(columns, row, strict=True)) for row in rows]
    data = {"machine": describe(), "facts": dict(facts), "rows": found}
    path.write_text(json.dumps(data, indent=2) + "\n")
    return path


def spread(rates: Sequence[float]) -> str:
    """The least and the most."""
    return f"{min(rates):,.0f} - {max(rates):,.0f}"


def resident(name: str = "VmRSS") -> float:
    """MiB of memory that this process holds, or with "VmHWM" held at most. 0 on other systems than Linux."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) / 1024
    return 0.0


def seconds(function: Any, repeats: int) -> list[float]:
    """Wall times of `function()`, which must block until its work is done. The caller has warmed it up."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return times
