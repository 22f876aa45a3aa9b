"""Synthetic markets whose optimal policy can be computed, to measure how well and how fast an agent learns.

A process draws bars, and states the distribution of the next bar, from which `evaluation/optimum.py` computes the
optimum. In every process open[t+1] = close[t], so a decision trades at the close that it saw. These markets do not
resemble real ones.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from jaxtrader.market.bars import Bars
from jaxtrader.market.errors import DataError
from jaxtrader.setting_checks import check_number, check_whole

if TYPE_CHECKING:
    from jaxtrader.market.market import Market  # it imports JAX, which `load_bars` does not need

MAX_HISTORY = 100_000  # bars
# The log price of a martingale falls by half its summed variance on average. This limit keeps prices within float32.
MAX_SUMMED_VARIANCE = 10.0
NODES = 9  # Gauss-Hermite nodes for each normal variable
REGIME_NODES = 25  # of the return in each regime: a belief bends near its ends
MOST_STATE = 4.5  # the end of the optimum's grid, which a belief does not reach


@dataclasses.dataclass(frozen=True)
class Process:
    """A market with one feature, the signal, of mean 0 and variance 1.

    A state of one number says all that can be known of the next bar. Mostly it is the signal. States lie on a grid from
    -4.5 to 4.5.

    Attributes:
        volatility: standard deviation of a bar's noise, 1e-5 to 0.05.
        name: the name as the command line spells it.
        limits: the lowest and the highest value of each setting.
    """

    volatility: float = 0.01

    name: ClassVar[str]
    limits: ClassVar[dict[str, tuple[float, float]]] = {"volatility": (1e-5, 0.05)}

    def __post_init__(self) -> None:
        for name, (low, high) in self.limits.items():
            value = getattr(self, name)
            check_number(name, value)
            if not low <= value <= high:
                raise DataError(
                    f"{type(self).__name__}({name}={value:g}) is not valid; {name} must be in {low:g} to {high:g}"
                )

    def market(self, bars: int = 1_000_000, seed: int = 0) -> Market:
        """Draw a market of `bars` hourly bars with the feature "signal". Prices are around 100 at first.

        There are as many histories as MAX_HISTORY and MAX_SUMMED_VARIANCE require. The first bar of each opens at its
        close.

        Raises:
            ValueError: `bars` is no number of at least 2 bars, or `seed` is none.
        """
        from jaxtrader.market.market import Market

        bars = check_whole("bars", bars, 2)
        rng = np.random.default_rng(check_whole("seed", seed, 0))
        histories = []
        for number, length in enumerate(_lengths(bars, self._long_volatility)):
            close, signal = self._path(rng, length)
            open_ = np.concatenate([close[:1], close[:-1]])
            histories.append(
                Bars(
                    symbols=(f"{self.name}-{number}",),
                    times=np.datetime64("2000-01-01T01", "ns") + np.arange(length) * np.timedelta64(1, "h"),
                    open=open_[:, None],
                    high=np.maximum(open_, close)[:, None],
                    low=np.minimum(open_, close)[:, None],
                    close=close[:, None],
                    volume=np.zeros((length, 1)),
                    columns={"signal": signal[:, None]},
                    source=repr(self),
                    notes=(),
                )
            )
        return Market.from_bars(histories, features=["signal"], periods_per_year=8760)

    @property
    def _long_volatility(self) -> float:
        """By whose square the variance of the log price grows a bar, over many bars."""
        return self.volatility

    def _path(self, rng: np.random.Generator, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw the closes and the signals of a history."""
        raise NotImplementedError

    def states(self, market: Market) -> np.ndarray:
        """Return the state at each row of a market of this process, from the signals up to it."""
        return market.features[:, 0, 0]

    def outcomes(self, state: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return k outcomes of the next bar for states `[n]`.

        Returns:
            The weights `[k]` or `[n, k]`, which sum to 1 over k, the simple returns `[n, k]` and the next states
            `[n, k]`.
        """
        raise NotImplementedError

    def returns(self, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the weights and simple returns of `outcomes`, maybe in fewer outcomes, without the next states."""
        weights, returns, _ = self.outcomes(state)
        return weights, returns


@dataclasses.dataclass(frozen=True)
class AR1(Process):
    """Simple returns r that an autoregressive signal s predicts.

    r[t+1] = volatility (sqrt(r2) s[t] + sqrt(1 - r2) e[t+1])
    s[t+1] = persistence s[t] + sqrt(1 - persistence^2) u[t+1]

    e and u are independent and standard normal, so s has variance 1. With proportional costs the optimal policy trades
    only if the position is far enough from the one that s asks for (de Lataillade et al. 2012,
    https://arxiv.org/abs/1203.5957).

    Attributes:
        volatility: standard deviation of the simple return of a bar, 1e-5 to 0.05.
        r2: fraction of the variance of r that the signal explains, 0 to 0.5.
        persistence: autocorrelation of the signal at one bar, 0 to 0.999.

    Example:
        >>> jt.datasets.AR1(r2=0.02).market(1000, seed=1).symbols
        ('ar1-0',)
    """

    r2: float = 0.01
    persistence: float = 0.9

    name: ClassVar[str] = "ar1"
    limits: ClassVar = Process.limits | {"r2": (0.0, 0.5), "persistence": (0.0, 0.999)}

    def _path(self, rng: np.random.Generator, length: int) -> tuple[np.ndarray, np.ndarray]:
        signal = _autoregression(rng, length, self.persistence)
        noise = rng.standard_normal(length)
        returns = np.zeros(length)
        returns[1:] = self._return(signal[:-1], noise[1:])
        return 100 * np.cumprod(1 + returns), signal

    def outcomes(self, state: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See `Process`. The outcomes are the products of the nodes of e and u."""
        nodes, weights = _gauss_hermite()
        noise, innovation = (x.ravel() for x in np.meshgrid(nodes, nodes, indexing="ij"))
        following = self.persistence * state[:, None] + math.sqrt(1 - self.persistence**2) * innovation
        return np.outer(weights, weights).ravel(), self._return(state[:, None], noise), following

    def returns(self, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Process`."""
        nodes, weights = _gauss_hermite()
        return weights, self._return(state[:, None], nodes)

    def _return(self, signal: np.ndarray, noise: np.ndarray) -> np.ndarray:
        return self.volatility * (math.sqrt(self.r2) * signal + math.sqrt(1 - self.r2) * noise)


@dataclasses.dataclass(frozen=True)
class RandomWalk(AR1):
    """Simple returns of mean 0 and a signal that does not predict them. The optimal policy is to stay flat.

    The drift is zero in simple returns, not in log returns. With zero drift in log returns the simple return would have
    the mean volatility^2 / 2, and half a long position would be optimal. A position loses half the variance of a bar in
    log equity, which is volatility / 2 of the bar's noise. The default volatility is high so that this is soon seen.

    Example:
        >>> jt.datasets.RandomWalk().r2
        0.0
    """

    volatility: float = 0.05
    r2: float = dataclasses.field(default=0.0, init=False, repr=False)

    name: ClassVar[str] = "random_walk"


@dataclasses.dataclass(frozen=True)
class OrnsteinUhlenbeck(Process):
    """A log price x that reverts to its mean: x[t+1] = persistence x[t] + volatility e[t+1], close = 100 exp(x).

    e is standard normal. The signal is x divided by its stationary standard deviation. The same noise moves price and
    signal, so a position that loses becomes more attractive (Martin and Schoeneborn 2011,
    https://arxiv.org/abs/1103.4934). Each history starts at a price of the stationary distribution.

    Attributes:
        volatility: standard deviation of the noise of a bar, 1e-5 to 0.05.
        persistence: fraction of x that remains after a bar, 0 to 0.999.

    Example:
        >>> round(jt.datasets.OrnsteinUhlenbeck(0.01, 0.8).deviation, 4)
        0.0167
    """

    persistence: float = 0.97

    name: ClassVar[str] = "mean_reversion"
    limits: ClassVar = Process.limits | {"persistence": (0.0, 0.999)}

    @property
    def deviation(self) -> float:
        """The stationary standard deviation of the log price."""
        return self.volatility / math.sqrt(1 - self.persistence**2)

    def _path(self, rng: np.random.Generator, length: int) -> tuple[np.ndarray, np.ndarray]:
        signal = _autoregression(rng, length, self.persistence)
        return 100 * np.exp(self.deviation * signal), signal

    def outcomes(self, state: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See `Process`. The outcomes are the nodes of e, which moves return and signal."""
        nodes, weights = _gauss_hermite()
        following = self.persistence * state[:, None] + math.sqrt(1 - self.persistence**2) * nodes
        return weights, np.expm1(self.deviation * (following - state[:, None])), following


@dataclasses.dataclass(frozen=True)
class HiddenRegime(Process):
    """Simple returns r whose drift has a sign g, +1 or -1, that nobody sees.

    r[t+1] = volatility (drift g[t+1] + e[t+1]), and g changes with probability `switching` at each bar.

    e is standard normal. The signal is the bar's own return, scaled to variance 1. So a policy must remember returns.
    The state is the belief, the log odds of g[t+1] = 1 given all returns up to t, which Bayes' rule updates (Hamilton
    1989, https://doi.org/10.2307/1912559):

    odds[t+1] = T(odds[t] exp(2 drift r[t+1] / volatility)), with T(o) = ((1 - switching) o + switching) /
    ((1 - switching) + switching o)

    The optimum is then that of a market with a visible state, the belief. The belief before each history is even.

    Attributes:
        volatility: standard deviation of a bar's simple return in a known regime, 1e-5 to 0.05.
        drift: mean return of a bar in deviations, 0.01 to 1.
        switching: probability that the regime changes at a bar, 0.001 to 0.5.

    Example:
        >>> process = jt.datasets.HiddenRegime()
        >>> process.states(process.market(100, seed=0)).shape
        (100,)
    """

    drift: float = 0.25
    switching: float = 0.02

    name: ClassVar[str] = "hidden_regime"
    limits: ClassVar = Process.limits | {"drift": (0.01, 1.0), "switching": (0.001, 0.5)}

    @property
    def most_odds(self) -> float:
        """The log odds that no belief reaches, however clear the past: that the regime does not change."""
        return math.log((1 - self.switching) / self.switching)

    @property
    def _long_volatility(self) -> float:
        persistence = 1 - 2 * self.switching  # the correlation of g with its last value
        return self.volatility * math.sqrt(1 + self.drift**2 * (1 + persistence) / (1 - persistence))

    @property
    def _deviation(self) -> float:
        """The standard deviation of a return, in those of a known regime."""
        return math.sqrt(1 + self.drift**2)

    def _path(self, rng: np.random.Generator, length: int) -> tuple[np.ndarray, np.ndarray]:
        changes = rng.random(length) < self.switching
        regime = rng.choice((-1.0, 1.0)) * np.where(np.cumsum(changes) % 2, -1.0, 1.0)
        moved = self.drift * regime + rng.standard_normal(length)
        moved[0] = 0
        return 100 * np.cumprod(1 + self.volatility * moved), moved / self._deviation

    def states(self, market: Market) -> np.ndarray:
        """See `Process`."""
        evidence = np.exp(2 * self.drift * self._deviation * market.features[:, 0, 0])
        states = np.empty(len(evidence))
        for start, _, end in market.segments:
            odds, beliefs = 1.0, []
            for factor in evidence[start:end].tolist():
                odds = self._may_change(odds * factor)
                beliefs.append(odds)
            states[start:end] = np.log(beliefs)
        return states * (MOST_STATE / self.most_odds)

    def outcomes(self, state: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See `Process`. The outcomes are the nodes of e in each regime."""
        log_odds, weights, moved = self._moves(state, REGIME_NODES)
        odds = np.exp(log_odds + 2 * self.drift * moved)
        return weights, self.volatility * moved, np.log(self._may_change(odds)) * (MOST_STATE / self.most_odds)

    def returns(self, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Process`. Few nodes are enough without the beliefs."""
        _, weights, moved = self._moves(state, 3)
        return weights, self.volatility * moved

    def _moves(self, state: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the log odds `[n, 1]` of states `[n]`, and weights and returns / volatility `[n, 2 count]`."""
        nodes, weights = _gauss_hermite(count)
        log_odds = state[:, None] * (self.most_odds / MOST_STATE)
        up = 1 / (1 + np.exp(-log_odds))
        joint = np.concatenate([up * weights, (1 - up) * weights], 1)
        return log_odds, joint, np.broadcast_to(np.concatenate([self.drift + nodes, nodes - self.drift]), joint.shape)

    def _may_change(self, odds: Any) -> Any:
        """Return the odds of the next bar's regime, from those of this bar's: T(o) above."""
        stay, change = 1 - self.switching, self.switching
        return (stay * odds + change) / (stay + change * odds)


PROCESSES: dict[str, type[Process]] = {
    process.name: process for process in (AR1, OrnsteinUhlenbeck, RandomWalk, HiddenRegime)
}


def _gauss_hermite(count: int = NODES) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes and weights for the expectation over a standard normal variable."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(count)
    return nodes, weights / weights.sum()


def _autoregression(rng: np.random.Generator, length: int, persistence: float) -> np.ndarray:
    """Draw a stationary AR(1) path of variance 1."""
    from scipy.signal import lfilter

    noise = rng.standard_normal(length)
    noise[1:] *= math.sqrt(1 - persistence**2)
    return np.asarray(lfilter([1.0], [1.0, -persistence], noise))


def _lengths(bars: int, volatility: float) -> list[int]:
    """Divide `bars` into the fewest histories of equal length that MAX_HISTORY and MAX_SUMMED_VARIANCE allow."""
    count = math.ceil(bars / min(MAX_HISTORY, MAX_SUMMED_VARIANCE / volatility**2))
    return [len(part) for part in np.array_split(np.empty(bars, np.int8), count)]
