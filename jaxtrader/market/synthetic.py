"""Synthetic markets whose best policy can be computed: to show that a learner works, and how fast.

A process draws bars like any other, and tells the distribution of what comes next: `evaluation/optimum.py` solves it.
In all of them open[t+1] = close[t], so a decision trades at the close that it saw. Not for testing an idea about real
markets: nothing here is one.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np

from jaxtrader.market.bars import Bars
from jaxtrader.market.checks import DataError

if TYPE_CHECKING:
    from jaxtrader.market.market import Market  # brings JAX, which loading bars does not need

HISTORY = 100_000  # bars of one history at most
FADE = 10.0  # and of its summed variance: a martingale's log price falls by half of that, and float32 ends somewhere
NODES = 9  # Gauss-Hermite nodes a Gaussian


class Process(Protocol):
    """A market with one feature, the signal, in its own deviations, that says all there is to know of the next bar."""

    name: ClassVar[str]

    def market(self, bars: int, seed: int) -> Market:
        """A path of it."""
        ...

    def outcomes(self, signal: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Weights `[k]` of k outcomes, and for signals `[n]` the next simple return and the next signal `[n, k]`."""
        ...

    def returns(self, signal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same of the next simple return alone, in fewer outcomes."""
        ...


@dataclasses.dataclass(frozen=True)
class AR1:
    """Returns driven by a signal that fades: r[t+1] = volatility (sqrt(r2) s[t] + sqrt(1 - r2) e[t+1]).

    s[t+1] = persistence s[t] + sqrt(1 - persistence^2) u[t+1], with e and u independent standard normal: s has variance
    1, r is the simple return. With proportional costs the best policy trades only where s is far enough from what is
    held (de Lataillade et al. 2012, https://arxiv.org/abs/1203.5957).

    Attributes:
        volatility: standard deviation of a bar's simple return.
        r2: share of its variance that the signal explains.
        persistence: autocorrelation of the signal from bar to bar.
    """

    volatility: float = 0.01
    r2: float = 0.01
    persistence: float = 0.9

    name: ClassVar[str] = "ar1"

    def __post_init__(self) -> None:
        _in_range(self, volatility=(1e-5, 0.05), r2=(0.0, 0.5), persistence=(0.0, 0.999))

    def market(self, bars: int = 1_000_000, seed: int = 0) -> Market:
        """Histories (see HISTORY, FADE) with the feature "signal", each from price 100. Raises DataError below 2."""
        rng = np.random.default_rng(seed)
        paths = []
        for length in _lengths(bars, self.volatility):
            signal = _autoregression(rng, length, self.persistence)
            noise = rng.standard_normal(length)
            returns = np.zeros(length)
            returns[1:] = self._return(signal[:-1], noise[1:])
            paths.append((100 * np.cumprod(1 + returns), signal))
        return _market(self, paths)

    def outcomes(self, signal: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See `Process`: the products of the nodes of e and u."""
        nodes, weights = _gauss_hermite()
        noise, innovation = (x.ravel() for x in np.meshgrid(nodes, nodes, indexing="ij"))
        both = np.outer(weights, weights).ravel()
        following = self.persistence * signal[:, None] + math.sqrt(1 - self.persistence**2) * innovation
        return both, self._return(signal[:, None], noise), following

    def returns(self, signal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Process`."""
        nodes, weights = _gauss_hermite()
        return weights, self._return(signal[:, None], nodes)

    def _return(self, signal: np.ndarray, noise: np.ndarray) -> np.ndarray:
        return self.volatility * (math.sqrt(self.r2) * signal + math.sqrt(1 - self.r2) * noise)


@dataclasses.dataclass(frozen=True)
class RandomWalk(AR1):
    """A signal that says nothing, and simple returns of mean 0: whatever is traded costs, and the best is to be flat.

    Zero drift in simple returns, not in logs: with the latter, half a long position would be best (E r = variance / 2).
    Holding costs half the variance, volatility / 2 of a bar's noise: the calmer, the longer it takes to notice; hence
    the wild default.
    """

    volatility: float = 0.05
    r2: float = dataclasses.field(default=0.0, init=False, repr=False)

    name: ClassVar[str] = "random-walk"


@dataclasses.dataclass(frozen=True)
class OrnsteinUhlenbeck:
    """A log price that returns to its mean: x[t+1] = persistence x[t] + volatility e[t+1], close = 100 exp(x).

    Its signal is x in stationary deviations. The same noise moves price and signal, so a position that loses becomes
    more attractive (Martin and Schoeneborn 2011, https://arxiv.org/abs/1103.4934).

    Attributes:
        volatility: standard deviation of a bar's noise.
        persistence: how much of the deviation is left after a bar.
    """

    volatility: float = 0.01
    persistence: float = 0.97

    name: ClassVar[str] = "mean-reversion"

    def __post_init__(self) -> None:
        _in_range(self, volatility=(1e-5, 0.05), persistence=(0.0, 0.999))

    @property
    def deviation(self) -> float:
        """Stationary standard deviation of the log price."""
        return self.volatility / math.sqrt(1 - self.persistence**2)

    def market(self, bars: int = 1_000_000, seed: int = 0) -> Market:
        """Histories as in AR1, each from its own place around 100. Raises DataError below 2 bars."""
        rng = np.random.default_rng(seed)
        signals = [_autoregression(rng, length, self.persistence) for length in _lengths(bars, self.volatility)]
        return _market(self, [(100 * np.exp(self.deviation * signal), signal) for signal in signals])

    def outcomes(self, signal: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See `Process`: the nodes of e, which gives both."""
        nodes, weights = _gauss_hermite()
        following = self.persistence * signal[:, None] + math.sqrt(1 - self.persistence**2) * nodes
        return weights, np.expm1(self.deviation * (following - signal[:, None])), following

    def returns(self, signal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Process`."""
        weights, returns, _ = self.outcomes(signal)
        return weights, returns


PROCESSES: dict[str, type[AR1] | type[OrnsteinUhlenbeck]] = {p.name: p for p in (AR1, OrnsteinUhlenbeck, RandomWalk)}


def _gauss_hermite() -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights for the expectation over a standard normal variable."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    return nodes, weights / weights.sum()


def _autoregression(rng: np.random.Generator, length: int, persistence: float) -> np.ndarray:
    """A stationary AR(1) path of variance 1."""
    from scipy.signal import lfilter

    noise = rng.standard_normal(length)
    noise[1:] *= math.sqrt(1 - persistence**2)
    return np.asarray(lfilter([1.0], [1.0, -persistence], noise))


def _lengths(bars: int, volatility: float) -> list[int]:
    """`bars` in histories as equal as can be, none too long (see HISTORY and FADE)."""
    if bars < 2:
        raise DataError(f"A synthetic market of {bars} bars is not possible; give at least 2.")
    count = math.ceil(bars / min(HISTORY, FADE / volatility**2))
    return [len(part) for part in np.array_split(np.empty(bars, np.int8), count)]


def _market(process: AR1 | OrnsteinUhlenbeck, paths: list[tuple[np.ndarray, np.ndarray]]) -> Market:
    """Hourly bars of each path's close and signal, the first opening at its close."""
    from jaxtrader.market.market import Market

    histories = []
    for number, (close, signal) in enumerate(paths):
        open_ = np.concatenate([close[:1], close[:-1]])
        times = np.datetime64("2000-01-01T01", "ns") + np.arange(len(close)) * np.timedelta64(1, "h")
        prices = np.stack([open_, np.maximum(open_, close), np.minimum(open_, close), close])[..., None]
        histories.append(
            Bars(
                symbols=(f"{process.name}-{number}",),
                times=times,
                open=prices[0],
                high=prices[1],
                low=prices[2],
                close=prices[3],
                volume=np.zeros((len(close), 1)),
                columns={"signal": signal[:, None]},
                source=repr(process),
                notes=(),
            )
        )
    return Market.from_bars(histories, features=["signal"], periods_per_year=8760)


def _in_range(process: AR1 | OrnsteinUhlenbeck, **limits: tuple[float, float]) -> None:
    for name, (low, high) in limits.items():
        value = getattr(process, name)
        if not low <= value <= high:
            raise DataError(
                f"{type(process).__name__}({name}={value:g}) is not possible; it lies in {low:g} to {high:g}."
            )
