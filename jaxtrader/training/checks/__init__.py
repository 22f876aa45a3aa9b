"""Five checks of a market and its features, before a result on them is believed: `run` does them.

Two look at the features alone: do they use the past only (`past_only`), and do they know too much of the next return
(`plausible`)? Three train a small agent and judge it on held-out bars: with every feature one bar later (`delayed`),
with the future among its features (`oracle`), and on shuffled bars (`shuffled`). A check that passes has found no fault
of its kind; it is no evidence of an edge. The training demo of `jaxtrader train` has settings of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jaxtrader.market.bars import Bars
from jaxtrader.market.features import Feature
from jaxtrader.market.market import Market
from jaxtrader.training.checks.correlation import plausible
from jaxtrader.training.checks.learned import delayed, oracle, shuffled
from jaxtrader.training.checks.lookahead import past_only
from jaxtrader.training.checks.result import Check
from jaxtrader.training.checks.trials import Setting

__all__ = ["NAMES", "Check", "Setting", "delayed", "oracle", "past_only", "plausible", "run", "shuffled"]

NAMES = ("past only", "plausible", "one bar late", "oracle", "shuffled")


def run(
    bars: Bars | Sequence[Bars],
    features: Sequence[str | Feature] | None = None,
    setting: Setting | None = None,
    *,
    only: Sequence[str] = NAMES,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[Check, ...]:
    """The checks, in the order in which they should be read: a leak found early explains what comes later.

    The four trainings have the same shapes and settings, so the training step is compiled once. Nothing is written but
    to a temporary folder.

    Args:
        bars: what `load_bars` returned.
        features: names or `Feature`s; default `features.DEFAULT`.
        setting: positions, costs, and how the agents of the last three checks are trained.
        only: names of the checks to run, with spaces or as the command's flag has them ("past-only"), default all five
            of `NAMES`; the first two train nothing and take a moment.
        say: is told which check begins.

    Raises:
        DataError: the bars cannot be made a market with these features, or are too few to train and judge on.
        ValueError: a setting is out of range, or a name is none of a check.
    """
    only = _spaced(only)
    setting = prepare(Market.from_bars(bars, features=features), setting, only)
    every = {
        "past only": ("does each feature see the past only?", lambda: past_only(bars, features, seed=setting.seed)),
        "plausible": (
            "does a feature know too much of the next return?",
            lambda: plausible(bars, features, setting.fill),
        ),
        "one bar late": (
            "what is left when all features come one bar later?",
            lambda: delayed(bars, features, setting),
        ),
        "oracle": ("does the agent get rich when it is told the future?", lambda: oracle(bars, features, setting)),
        "shuffled": ("does it find nothing in shuffled bars?", lambda: shuffled(bars, features, setting)),
    }
    chosen = [every[name] for name in NAMES if name in only]
    done = []
    for number, (what, check) in enumerate(chosen, 1):
        say(f"{number}/{len(chosen)} {what}")
        done.append(check())
    return tuple(done)


def prepare(market: Market, setting: Setting | None = None, only: Sequence[str] = NAMES) -> Setting:
    """The setting, default filled in. Raises as `run` does, before anything is run.

    "past only" alone may run on few bars, since no chance is in it; on as few, `plausible` would fail by chance.
    """
    only = _spaced(only)
    unknown = [name for name in only if name not in NAMES]
    if unknown or not only:
        raise ValueError(
            f"only {', '.join(unknown) or 'nothing'} names no check to run; the checks are {', '.join(NAMES)}"
        )
    setting = setting or Setting()
    return setting if set(only) == {"past only"} else setting.validate(market)


def _spaced(only: Sequence[str]) -> tuple[str, ...]:
    """The names as `NAMES` spells them."""
    return tuple(name.replace("-", " ") for name in only)
