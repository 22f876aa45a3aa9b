"""Messages of the API in the words of the command line: flags, their units, and values as they are typed."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import pytest

import jaxtrader as jt
from jaxtrader.agents.ppo_settings import PPOSettings
from jaxtrader.cli.settings import COMMANDS, flag
from jaxtrader.cli.wording import in_flags
from jaxtrader.envs.env_settings import EnvSettings
from jaxtrader.ledger.cost_rates import CostRates
from jaxtrader.training.train_settings import TrainSettings

BUILDS: dict[type, Callable[..., Any]] = {
    jt.Rules: jt.Rules,
    CostRates: lambda **given: jt.Costs(**given).validate(),
    PPOSettings: lambda **given: jt.PPOAgent(**given).validate(),
    TrainSettings: lambda **given: TrainSettings(**{"total_steps": 1} | given).validate_settings(),
    EnvSettings: EnvSettings,
}
WRONG = (-5, 1e9, (-1,), float("nan"))
NUMBER = re.compile(r"float|int|Rate")


def refusals() -> list[Any]:
    """A message for each setting with numbers that the API refuses, with the name of the setting."""
    found = []
    for cls, build in BUILDS.items():
        for field in dataclasses.fields(cls):
            if not NUMBER.search(str(field.type)):
                continue
            for wrong in WRONG if "int" not in str(field.type) else WRONG[:-1]:
                try:
                    build(**{field.name: wrong})
                except (ValueError, TypeError) as error:
                    if isinstance(error, ValueError):
                        found.append(pytest.param(field.name, str(error), id=f"{field.name}-{wrong}"))
    return found


REFUSALS = refusals()
SETTINGS = {field.name for command in COMMANDS.values() for field in command.fields.values()}


def test_most_settings_are_refused_somewhere() -> None:
    assert len({param.values[0] for param in REFUSALS}) > 30


@pytest.mark.parametrize(("name", "message"), REFUSALS)
def test_what_the_api_refuses_is_named_by_its_flag(name: str, message: str) -> None:
    text = in_flags(message)
    assert name not in SETTINGS or flag(name) in text
    without_flags = re.sub(r"--[\w-]+", "", text)
    assert not [one for one in SETTINGS if "_" in one and one in without_flags]
    assert not re.search(r"\w=|\bNone\b|[A-Z]\w+\(", text)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("max_leverage 2.0 is outside (0, 1]", "--leverage 2 is outside (0, 1]"),
        (
            "fee -0.0001 is outside [0, 0.5): it is a fraction",
            "--fee-bps -1 is outside [0, 5000): it is in basis points",
        ),
        (
            "fee -1 is outside [0, 0.5): it is a fraction; a rate that is named in Costs.rebates may be below 0",
            "--fee-bps -10000 is outside [0, 5000): it is in basis points of the traded value; only the Costs",
        ),
        ("PPOAgent(hidden=(8, 8)) is odd", "--hidden 8,8 is odd"),
        ("use window=32, or encoder='mlp'", "use --window 32, or --encoder mlp"),
        ("use label='open' (--label open)", "use --label open"),
        ("adjust=False (--no-adjust) keeps them", "--no-adjust keeps them"),
        ("name the zone with tz= (--tz)", "name the zone with --tz"),
        ("align=True needs bars; or load separate histories without align.", "--portfolio needs bars; or leave --port"),
        ("lot needs capital, the initial capital", "--lot needs --capital, the initial capital"),
        ("encoder_depth None and delay 1", "--encoder-depth none and --delay 1"),
        ("give fewer num_envs", "give fewer --num-envs"),
        ("tz='' is unknown", "--tz '' is unknown"),
    ],
)
def test_a_message_is_translated(message: str, text: str) -> None:
    assert in_flags(message).startswith(text)


@pytest.mark.parametrize(
    "message",
    [
        "--seed -1 is outside 0 to 9",
        "runs/max_leverage/policy.pkl cannot be read",
        "max_leverage.csv holds no bar",
        "the column 'num_envs' is missing",
        "it ends 5 bars before the start 7",
        "give a window of bars",
        "go on from Python with train(resume=True)",
    ],
)
def test_what_is_no_setting_stays(message: str) -> None:
    assert in_flags(message) == message
