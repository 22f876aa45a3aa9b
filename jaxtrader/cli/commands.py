"""Runs a command, each in a module of its name, and turns what fails into one sentence.

While a command builds the objects of the public API from its settings, what is wrong is the user's input. A ValueError
while it trains or tests would be a bug of ours, and is left to show itself.
"""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Mapping
from typing import Any

import jax

import jaxtrader as jt
from jaxtrader import compilation, devices
from jaxtrader.cli import distributed, own_code
from jaxtrader.cli.backtest_command import backtest_policy
from jaxtrader.cli.check_command import check
from jaxtrader.cli.compare_command import compare_runs
from jaxtrader.cli.data_command import describe_file
from jaxtrader.cli.decide_command import decide
from jaxtrader.cli.export_command import export_policy
from jaxtrader.cli.report_command import rewrite_report
from jaxtrader.cli.settings import TRAINING, Failed, check_trials, resolved
from jaxtrader.cli.sweep_command import sweep
from jaxtrader.cli.train_command import train
from jaxtrader.cli.walk_forward_command import walk_forward
from jaxtrader.cli.watch_command import watch
from jaxtrader.cli.wording import translated
from jaxtrader.evaluation import tables
from jaxtrader.printable import printable

OF_CACHE = "persistent compilation cache entry"  # in JAX's warnings


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Show a warning as one sentence, without a line of code."""
    text = printable(translated(" ".join(str(message).split())))
    if OF_CACHE in text:
        _warn_of_cache()
    else:
        print(f"jaxtrader: warning: {text}", file=sys.stderr)


@functools.cache
def _warn_of_cache() -> None:
    """Say once what JAX says of each program, such as where the disk is full."""
    print(
        "jaxtrader: warning: compiled programs cannot be kept for later runs; make room in the cache's folder, or give "
        f"another one by {compilation.VARIABLE}",
        file=sys.stderr,
    )


RUNS = {
    "train": train,
    "walk-forward": walk_forward,
    "sweep": sweep,
    "backtest": backtest_policy,
    "report": rewrite_report,
    "compare": compare_runs,
    "export": export_policy,
    "watch": watch,
    "decide": decide,
    "data": describe_file,
    "check": check,
}


def run(name: str, given: Mapping[str, Any]) -> int:
    """Run the command of this name with the settings that were given, and return its exit code.

    Raises:
        BadInput: what the user gave cannot be used. Nothing has been written.
        Failed: training or saving failed. What could be saved has been.
    """
    values = resolved(name, given)
    check_trials(values)
    compilation.enable_cache()
    if values.get("devices", 1) > 1 and not values.get("distributed"):
        devices.split_cpu(values["devices"])
    if name not in TRAINING and values.get("network") is not None:
        own_code.load_module(values["network"])
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            with distributed.joined(values):
                return RUNS[name](values, tables.console())
    except jt.TrainingDiverged as error:
        raise Failed(str(error)) from error
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        way_out = "use fewer `num_envs` or `seeds_at_once`, or a shorter `window` or `rollout_length`"
        raise Failed(f"the device has too little memory; {way_out}") from error
    except (jt.FileError, OSError) as error:
        raise Failed(f"a result could not be written: {error}") from error
