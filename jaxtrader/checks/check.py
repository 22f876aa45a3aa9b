"""The result of one check: its verdict, the measured figure, and sentences for both."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        name: name of the check.
        passed: the verdict.
        figure: what was measured.
        limit: the most that passes, or the least where `is_minimum`.
        measure: what the figure is, in a few words.
        text: what was found, in one sentence.
        meaning: what a failure means and what to do about it, in one sentence.
        is_minimum: True where the limit is the least that passes.

    Example:
        >>> check = jt.checks.past_only(jt.load_bundled("IBM"), ["gap"])
        >>> check.name, check.passed
        ('past_only', True)
    """

    name: str
    passed: bool
    figure: float
    limit: float
    measure: str
    text: str
    meaning: str
    is_minimum: bool = False
