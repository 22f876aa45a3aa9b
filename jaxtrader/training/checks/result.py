"""What a check came to: its verdict, the figure behind it, and words for both."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        name: of the check, two words at most.
        passed: the verdict.
        figure: what was measured.
        limit: what the figure was held against: it may be neither above nor, where `least`, below.
        measure: what the figure is, in a few words.
        text: what was found, one sentence.
        meaning: what a failure means and what to do about it, one sentence.
        least: True where the limit is the least that passes, not the most.
    """

    name: str
    passed: bool
    figure: float
    limit: float
    measure: str
    text: str
    meaning: str
    least: bool = False
