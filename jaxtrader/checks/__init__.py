"""Five checks of a market and its features for leaks, to run before a result on them is believed.

Two checks look at the features alone. `past_only` tests that they use the past only. `plausible` tests that they do not
know too much of the next return. Three checks train a small agent and judge it on held-out bars. `delayed` gives it
every feature one bar later, `oracle` has the future among its features, and `shuffled` shuffles the bars. A check that
passes has found no fault of its kind. It is no evidence that a policy will earn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from jaxtrader.checks.check import Check
from jaxtrader.checks.correlation import plausible
from jaxtrader.checks.holdout import CheckSettings
from jaxtrader.checks.learned import delayed, oracle, shuffled
from jaxtrader.checks.lookahead import past_only
from jaxtrader.market.bars import Bars
from jaxtrader.market.features import Feature
from jaxtrader.market.market import Market
from jaxtrader.setting_checks import check_type, setting

__all__ = ["NAMES", "Check", "CheckSettings", "delayed", "oracle", "past_only", "plausible", "run", "shuffled"]

QUESTIONS = {
    "past_only": "does each feature see the past only?",
    "plausible": "does a feature know too much of the next return?",
    "one_bar_late": "what is left when all features come one bar later?",
    "oracle": "does the agent get rich when it is told the future?",
    "shuffled": "does it find nothing in shuffled bars?",
}
NAMES = tuple(QUESTIONS)


def run(
    bars: Bars | Sequence[Bars],
    features: Sequence[str | Feature] | None = None,
    settings: CheckSettings | None = None,
    *,
    only: Sequence[str] = NAMES,
    notify: Callable[[str], None] = lambda line: None,
) -> tuple[Check, ...]:
    """Run the checks in the order of `NAMES`. A leak that an early check finds explains the failures of later ones.

    The trainings of the last three checks have the same shapes and settings, so the training step is compiled once.
    They write to a temporary folder only.

    Args:
        bars: what `load_bars` returned.
        features: names or `Feature`s. The default is `features.DEFAULT`.
        settings: positions, rules, costs, and how the agents of the last three checks are trained.
        only: names of the checks to run. The default is all five. The first two train nothing and take a moment.
        notify: is called with a line of text when a check begins.

    Raises:
        DataError: the bars cannot be made a market with these features, or are too few to train and judge on.
        ValueError: a setting is out of range, or a name is not in `NAMES`.

    Example:
        >>> late = lambda bars: (bars.close / bars.open).take(range(1, len(bars) + 1), 0, mode="clip")
        >>> ahead = jt.features.Feature("ahead", 1, late)  # it knows the next bar
        >>> bars = jt.load_bundled("IBM")
        >>> [check.passed for check in jt.checks.run(bars, ["gap", ahead], only=["past_only", "plausible"])]
        [False, False]
    """
    settings = prepare(Market.from_bars(bars, features=features), settings, only)
    checks: dict[str, Callable[[], Check]] = {
        "past_only": lambda: past_only(bars, features, seed=settings.seed),
        "plausible": lambda: plausible(bars, features, settings.rules.fill),
        "one_bar_late": lambda: delayed(bars, features, settings),
        "oracle": lambda: oracle(bars, features, settings),
        "shuffled": lambda: shuffled(bars, features, settings),
    }
    chosen = [name for name in NAMES if name in only]
    results = []
    for number, name in enumerate(chosen, 1):
        notify(f"{number}/{len(chosen)} {QUESTIONS[name]}")
        results.append(checks[name]())
    return tuple(results)


def prepare(market: Market, settings: CheckSettings | None = None, only: Sequence[str] = NAMES) -> CheckSettings:
    """Return the settings, or the default ones. Raises what `run` raises, before anything is run.

    "past_only" alone may run on few bars, since chance plays no part in it. On few bars `plausible` would fail by
    chance.
    """
    if isinstance(only, str) or not isinstance(only, Iterable):
        raise ValueError(f"{setting('only', only)} must be a list of names, such as `only=['past_only']`")
    unknown = [name for name in only if name not in NAMES]
    if unknown or not only:
        raise ValueError(f"{setting('only', tuple(only))} names no check to run; the checks are {', '.join(NAMES)}")
    settings = CheckSettings() if settings is None else settings
    check_type("checks", settings, CheckSettings, "make them with `checks.CheckSettings(...)`")
    return settings if set(only) == {"past_only"} else settings.validate(market)
