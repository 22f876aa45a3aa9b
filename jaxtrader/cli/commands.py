"""Runs a command of `config.py`, each in a module of its name, and turns what fails into one sentence.

While the commands build the objects of the public API from the flags, what is wrong is the user's input; a ValueError
while training or testing would be a bug of ours and is left to show itself.
"""

from __future__ import annotations

from typing import Any

import jax

from jaxtrader import compilation, devices
from jaxtrader.cli.backtest import backtest_policy
from jaxtrader.cli.check import check
from jaxtrader.cli.config import BacktestConfig, CheckConfig, Config, DataConfig, Failed, TrainConfig
from jaxtrader.cli.data import describe_file
from jaxtrader.cli.train import train
from jaxtrader.evaluation import report
from jaxtrader.files import FileError
from jaxtrader.training.trainer import TrainingDiverged


def run(config: Config) -> int:
    """Run the command that the configuration is of; its exit code.

    Raises:
        BadInput: what the user gave cannot be used. Nothing has been written.
        Failed: training or saving failed; what could be saved has been.
    """
    commands = {TrainConfig: train, BacktestConfig: backtest_policy, DataConfig: describe_file, CheckConfig: check}
    command: Any = commands[type(config)]
    compilation.keep_programs()
    if isinstance(config, TrainConfig) and config.devices > 1:
        devices.split_cpu(config.devices)
    try:
        return command(config, report.console())
    except TrainingDiverged as error:
        raise Failed(str(error)) from error
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        way_out = "use fewer --num-envs, or a shorter --window or --rollout-length"
        raise Failed(f"the device has too little memory; {way_out}") from error
    except BrokenPipeError:
        raise
    except (FileError, OSError) as error:
        raise Failed(f"a result could not be written: {error}") from error
