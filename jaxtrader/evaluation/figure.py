"""A figure of results: equity beside the baselines, drawdown, and exposure, with matplotlib."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxtrader.evaluation import metrics
from jaxtrader.evaluation.verdict import Part
from jaxtrader.market.clock import wall_clock

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#1667c7", "#8a94a3", "#c77d16", "#7a5fc0", "#2a9d8f", "#c2556e", "#6b8e23")
LOG_FROM = 4  # highest over lowest equity from which the scale is logarithmic
TITLE_WIDTH = 100  # characters
SHADES = {"validation": "#e6a014", "test": "#1667c7"}


def figure(parts: Mapping[str, Part], title: str = "") -> Figure:
    """Return a figure of the policy beside its baselines, with validation and test shaded and named.

    Args:
        parts: the results by name, by the name of their part, in the order of time.
        title: stands above.
    """
    from matplotlib.figure import Figure

    made = Figure(figsize=(9, 5.4), layout="constrained")
    axes = made.subplots(3, 1, sharex=True, height_ratios=(3, 1, 1))
    labels = list(next(iter(parts.values())))
    first = labels[0]
    local = {name: wall_clock(part[first].times, part[first].tz) for name, part in parts.items()}
    times = np.concatenate(list(local.values()))
    for i, label in reversed(list(enumerate(labels))):
        equity = joined_equity([part[label].equity for part in parts.values()])
        style = {"color": COLOURS[i % len(COLOURS)], "linewidth": 1.6 if i == 0 else 0.9, "label": label}
        axes[0].plot(times, equity, **style)
        if i < 2:
            axes[1].plot(times, 100 * metrics.drawdowns(equity), **style)
    exposure = np.concatenate([part[first].exposure.sum(axis=1) for part in parts.values()])
    axes[2].fill_between(times, 100 * exposure, step="post", color=COLOURS[0], alpha=0.5, linewidth=0)
    low, high = axes[0].get_ylim()
    lowest = min(line.get_ydata().min() for line in axes[0].lines)
    if lowest > 0 and high > LOG_FROM * lowest:
        axes[0].set_yscale("log")
        axes[0].yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if _is_round(value) else "")
    else:
        axes[0].set_ylim(low, high)
    axes[0].yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    for axis, name in zip(axes, ("equity", "drawdown %", "exposure %"), strict=True):
        axis.set_ylabel(name)
        axis.grid(alpha=0.25)
        axis.margins(x=0)
        for part, shade in SHADES.items():
            if part in parts:
                axis.axvspan(local[part][0], local[part][-1], color=shade, alpha=0.1, lw=0)
    for part in SHADES:
        if part in parts:
            place = {"transform": axes[0].get_xaxis_transform(), "va": "bottom", "clip_on": True}
            axes[0].text(local[part][0], 0.02, f" {part}", fontsize=8, color="#647080", **place)
    handles, names = axes[0].get_legend_handles_labels()
    axes[0].legend(handles[::-1], names[::-1], loc="upper left", fontsize=8, frameon=False)
    axes[0].set_title(textwrap.fill(title, TITLE_WIDTH), loc="left", fontsize=10, parse_math=False)
    return made


def joined_equity(curves: Sequence[np.ndarray]) -> np.ndarray:
    """One curve of several, each from 1: a part goes on at the equity at which the one before it ended."""
    joined, level = [], 1.0
    for curve in curves:
        joined.append(level * curve)
        level = float(joined[-1][-1])
    return np.concatenate(joined)


def _is_round(value: float) -> bool:
    """Whether a number of a logarithmic axis begins with 2 or 5."""
    return value > 0 and round(value / 10 ** math.floor(math.log10(value)), 6) in (2, 5)
