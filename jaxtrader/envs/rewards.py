"""Rewards: pure, hashable functions of the equity before and after a bar, or of the whole bar (`MoveReward`).

A reward is static configuration of the environment. All rewards floor equity at EQUITY_FLOOR, so they stay finite after
ruin (money rule 7). An account that trades on below the floor earns 0 there.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from jaxtrader.ledger.account import EQUITY_FLOOR, Account
from jaxtrader.ledger.bar import Bar
from jaxtrader.schema import parse
from jaxtrader.setting_checks import check_flag, check_number, setting

NOISE_SHARE = 0.1  # share of DifferentialRatio's `volatility` below which a deviation counts as noise

Moments = tuple[Float[Array, "*b"], Float[Array, "*b"]]


class Reward(Protocol):
    """A function of the equity at close[t] and at close[t+1], any shape, that returns rewards of that shape."""

    def __call__(self, before: Array, after: Array) -> Array:
        """Return the rewards."""
        ...


@dataclass(frozen=True)
class Move:
    """One bar as a `MoveReward` sees it. Only what the reward reads is computed.

    Attributes:
        before: the accounts at close[t].
        after: the accounts at close[t+1], before any restart.
        bar: the prices between the two closes, `[*b, asset]`.
    """

    before: Account
    after: Account
    bar: Bar

    @property
    def log_return(self) -> Float[Array, "*b"]:
        """Log return of the floored equity."""
        return LogReturn()(self.before.equity, self.after.equity)

    @property
    def simple_return(self) -> Float[Array, "*b"]:
        """Simple return of the floored equity."""
        return _simple_return(self.before.equity, self.after.equity)

    @property
    def benchmark(self) -> Float[Array, "*b"]:
        """Log return of equal shares of all assets from close[t] to close[t+1], without any delisting return.

        An asset without a bar counts as cash. Dividends that are paid as cash are part of it.
        """
        worth = self.bar.close if self.bar.dividend is None else self.bar.close + self.bar.dividend
        return jnp.log((worth / self.bar.prev_close).mean(-1))

    @property
    def exposure(self) -> Float[Array, "*b A"]:
        """Signed position value / floored equity at close[t+1]."""
        return self.after.units * self.bar.close / jnp.maximum(self.after.equity, EQUITY_FLOOR)[..., None]


class MoveReward:
    """Base class of rewards that see the whole `Move`, and may keep a state from bar to bar.

    A subclass is pure and hashable (a frozen dataclass). Without a state it overrides `__call__` only. The state is a
    pytree of arrays `[*b, ...]`. It begins anew with each episode. It must not depend on the level of equity, because
    backtests rescale the account. `observed` names the k numbers of the state that the agent sees after its account
    features.

    Example:
        >>> @dataclass(frozen=True)
        ... class Invested(MoveReward):
        ...     def __call__(self, move, state):
        ...         return move.log_return - 1e-4 * jnp.abs(1 - move.exposure.sum(-1)), state
        >>> jt.TradingEnv(jt.Market.from_bars(jt.load_bundled("IBM")), reward=Invested()).reward
        Invested()
    """

    observed: ClassVar[tuple[str, ...]] = ()

    def begin(self, shape: tuple[int, ...], dtype: DTypeLike) -> Any:
        """Return the state of new accounts of this shape, or None where the reward has no state."""
        return None

    def __call__(self, move: Move, state: Any) -> tuple[Float[Array, "*b"], Any]:
        """Return the reward of the move, and the state after it with the same structure, shapes and dtypes."""
        raise NotImplementedError(f"{type(self).__name__} must say what it pays: override __call__(move, state)")

    def observe(self, state: Any) -> Float[Array, "*b k"]:
        """Return the bounded numbers that `observed` names. A live decision needs them too."""
        raise NotImplementedError(f"{type(self).__name__} names {self.observed}: override observe(state)")


def _simple_return(before: Array, after: Array) -> Array:
    return jnp.maximum(after, EQUITY_FLOOR) / jnp.maximum(before, EQUITY_FLOOR) - 1


@dataclass(frozen=True)
class LogReturn:
    """Log return of the floored equity. Rewards add up to the log of the final floored equity.

    Example:
        >>> round(float(jt.rewards.log_return()(1.0, 1.1)), 4)
        0.0953
    """

    def __call__(self, before: Array, after: Array) -> Array:
        """Return the reward."""
        return jnp.log(jnp.maximum(after, EQUITY_FLOOR) / jnp.maximum(before, EQUITY_FLOOR))


@dataclass(frozen=True)
class RiskPenalized:
    """Log return - (risk_aversion / 2) r^2, with the simple return r. Raises ValueError where risk_aversion < 0.

    The risk aversion is added to that of the log return, which is 1. The sum is the relative risk aversion of a power
    utility, of which this is the second-order expansion (Merton 1969). The log return alone charges half of the
    variance, and the penalty adds risk_aversion / 2 of it.

    Example:
        >>> round(float(jt.rewards.risk_penalized(5)(1.0, 1.01)), 4)  # log(1.01) - 5 / 2 * 0.01^2
        0.0097
    """

    risk_aversion: float

    def __post_init__(self) -> None:
        _check_penalty(self, "risk_penalized")

    def __call__(self, before: Array, after: Array) -> Array:
        """Return the reward."""
        simple = _simple_return(before, after)
        return jnp.log1p(simple) - 0.5 * self.risk_aversion * simple**2


@dataclass(frozen=True)
class OverBenchmark(MoveReward):
    """Log return less the log return of equal shares of all assets, see `Move.benchmark`.

    The benchmark is rebalanced at every close free of costs (the 1/N portfolio of DeMiguel, Garlappi and Uppal 2009).
    For one asset it is buy-and-hold. No action moves the benchmark, so without ruin the best policy is that of the log
    return, with less noise.

    Example:
        >>> env = jt.TradingEnv(jt.Market.from_bars(jt.load_bundled("IBM")), reward=jt.rewards.over_benchmark())
        >>> env.reward
        OverBenchmark()
    """

    def __call__(self, move: Move, state: None) -> tuple[Float[Array, "*b"], None]:
        """Return the reward, and no state."""
        return move.log_return - move.benchmark, state


@dataclass(frozen=True)
class DrawdownPenalized(MoveReward):
    """Log return r - lam (d' - d), with lam = risk_aversion. Raises ValueError where risk_aversion < 0.

    The drawdown is d = log(peak / equity), and after the bar it is d' = max(d - r, 0). Undiscounted rewards add up to
    log(E_T / E_0) - lam d_T. With a discount gamma they are worth the sum of gamma^t (r - lam (1 - gamma) d'). So the
    drawdown itself is charged at each bar (potential-based shaping, Ng, Harada and Russell 1999). Chekhlov, Uryasev and
    Zabarankin (2005) use the average drawdown as a measure of risk. The agent sees 1 - exp(-d), the
    drawdown as a share of the peak.

    Example:
        >>> reward = jt.rewards.drawdown_penalized(0.5)
        >>> reward.observed, reward.observe(jnp.log(jnp.asarray(2.0))).tolist()
        (('drawdown',), [0.5])
    """

    risk_aversion: float

    observed: ClassVar[tuple[str, ...]] = ("drawdown",)

    def __post_init__(self) -> None:
        _check_penalty(self, "drawdown_penalized")

    def begin(self, shape: tuple[int, ...], dtype: DTypeLike) -> Float[Array, "*b"]:
        """Return a drawdown of 0."""
        return jnp.zeros(shape, dtype)

    def __call__(self, move: Move, state: Float[Array, "*b"]) -> tuple[Float[Array, "*b"], Float[Array, "*b"]]:
        """Return the reward, and the drawdown after the bar."""
        earned = move.log_return
        drawdown = jnp.maximum(state - earned, 0)
        return earned - self.risk_aversion * (drawdown - state), drawdown

    def observe(self, state: Float[Array, "*b"]) -> Float[Array, "*b 1"]:
        """Return the drawdown as a share of the peak, in [0, 1)."""
        return -jnp.expm1(-state)[..., None]


@dataclass(frozen=True)
class DifferentialRatio(MoveReward):
    """What the simple return r of a bar adds to a moving Sharpe ratio or downside ratio, to first order in eta.

    The moving moments are A' = A + eta dA and B' = B + eta dB, with dA = r - A and dB = r^2 - B. The differential
    Sharpe ratio is the derivative of A' / sqrt(B' - A'^2) by eta at 0:

        D = (B dA - A dB / 2) / (B - A^2)^(3/2).

    The differential downside deviation ratio takes dB = min(r, 0)^2 - B and is the derivative of A' / sqrt(B'):

        D = dA / sqrt(B) - A dB / (2 B^(3/2)).

    Source: Moody and Saffell 2001, Learning to trade via direct reinforcement, IEEE Trans. Neural Networks 12(4).

    Two changes are ours. First, the moments begin at A = 0 and B = volatility^2, and (volatility / 10)^2 is added to
    the variance. Otherwise D is 0 / 0 at the start and unbounded after a rest out of the market. Second, ruin pays at
    most dA / deviation, because variance raises a negative ratio and a crash would pay.

    The agent sees the moving ratio, clipped to [-2, 2], and log(moving deviation / volatility), clipped to [-3, 3].

    Attributes:
        eta: weight of the newest bar, in (0, 1). The moments look back over about 1 / eta bars.
        volatility: usual standard deviation of a bar's return, above 0. It is about 0.01 for daily stocks.
        downside: whether only losses count as risk.
    """

    eta: float = 0.01
    volatility: float = 0.01
    downside: bool = False

    observed: ClassVar[tuple[str, ...]] = ("moving ratio", "moving deviation")

    def __post_init__(self) -> None:
        name = "differential_downside" if self.downside else "differential_sharpe"
        check_number("eta", self.eta)
        check_number("volatility", self.volatility)
        check_flag("downside", self.downside)
        if not 0 < self.eta < 1:
            raise ValueError(f"`{name}(eta={self.eta})` is outside (0, 1): it is the newest bar's weight, such as 0.01")
        if not 0 < self.volatility < math.inf:
            given = f"`{name}(volatility={self.volatility})`"
            raise ValueError(f"{given} must be finite and above 0: it is a bar's usual deviation, such as 0.01")
        object.__setattr__(self, "eta", float(self.eta))
        object.__setattr__(self, "volatility", float(self.volatility))

    def begin(self, shape: tuple[int, ...], dtype: DTypeLike) -> Moments:
        """Return the moments of a mean return of 0 and the usual deviation."""
        return jnp.zeros(shape, dtype), jnp.full(shape, self.volatility**2, dtype)

    def __call__(self, move: Move, state: Moments) -> tuple[Float[Array, "*b"], Moments]:
        """Return the reward, and the moments after the bar."""
        mean, second = state
        simple = move.simple_return
        square = jnp.minimum(simple, 0) ** 2 if self.downside else simple**2
        surprise = simple - mean
        variance, deviation = self._risk(state)
        # With V = B - A^2, D is dA / sqrt(V) - A dV / (2 V^1.5), and dV is dA^2 - V. This form loses no digits in
        # B - A^2 and raises nothing to a power that float32 cannot hold.
        change = square - second if self.downside else surprise**2 - variance
        first = surprise / deviation
        paid = first - 0.5 * (mean / deviation) * (change / deviation**2)
        paid = jnp.where(move.after.ruined, jnp.minimum(paid, first), paid)
        return paid, (mean + self.eta * surprise, second + self.eta * (square - second))

    def observe(self, state: Moments) -> Float[Array, "*b 2"]:
        """Return the clipped moving ratio, and the clipped log of moving / usual deviation."""
        _, deviation = self._risk(state)
        ratio, risk = state[0] / deviation, jnp.log(deviation / self.volatility)
        return jnp.stack([jnp.clip(ratio, -2, 2), jnp.clip(risk, -3, 3)], -1)

    def _risk(self, state: Moments) -> Moments:
        """Return the moving variance, and the moving deviation with its floor."""
        mean, second = state
        variance = second if self.downside else jnp.maximum(second - mean**2, 0)
        return variance, jnp.sqrt(variance + (NOISE_SHARE * self.volatility) ** 2)


def _check_penalty(reward: Any, name: str) -> None:
    aversion = reward.risk_aversion
    check_number("risk_aversion", aversion)
    if not 0 <= aversion < math.inf:
        raise ValueError(
            f"{setting('risk_aversion', aversion)} must be at least 0 and finite: below 0 {name} would pay for risk"
        )
    object.__setattr__(reward, "risk_aversion", float(aversion))


# --- the public names ---

log_return, over_benchmark = LogReturn, OverBenchmark
risk_penalized, drawdown_penalized = RiskPenalized, DrawdownPenalized


def differential_sharpe(eta: float = 0.01, volatility: float = 0.01) -> MoveReward:
    """Make the differential Sharpe ratio, see `DifferentialRatio`.

    Example:
        >>> jt.rewards.differential_sharpe(eta=0.02).observed
        ('moving ratio', 'moving deviation')
    """
    return DifferentialRatio(eta, volatility)


def differential_downside(eta: float = 0.01, volatility: float = 0.01) -> MoveReward:
    """Make the differential downside deviation ratio, see `DifferentialRatio`.

    Example:
        >>> jt.rewards.differential_downside(volatility=0.02).downside
        True
    """
    return DifferentialRatio(eta, volatility, downside=True)


# --- for the environment ---


def validate(reward: Any) -> None:
    """Raise ValueError where a reward is no function, has no hash, or does not observe what it names."""
    if not callable(reward):
        raise ValueError(f"{setting('reward', reward)} must be a function of two marks such as `rewards.log_return()`")
    try:
        hash(reward)
    except TypeError as error:
        raise ValueError(f"{setting('reward', reward)} has no hash; make its class a frozen dataclass") from error
    if isinstance(reward, type):
        raise ValueError(f"`reward` is the class {reward.__name__}; give an object: `{reward.__name__}()`")
    if not isinstance(reward, MoveReward):
        _check_function(reward)
    elif type(reward).__call__ is MoveReward.__call__:
        raise ValueError(f"{setting('reward', reward)} does not say what it pays; override `__call__(move, state)`")
    if isinstance(reward, MoveReward) and reward.observed:
        seen = jax.eval_shape(lambda: reward.observe(reward.begin((2,), jnp.float32))).shape
        if seen != (2, len(reward.observed)):
            raise ValueError(
                f"{setting('reward', reward)} observes an array of shape {seen} for 2 accounts; with the names "
                f"{', '.join(reward.observed)} it must be (2, {len(reward.observed)})"
            )


def _check_function(reward: Any) -> None:
    """Raise ValueError where a function does not make rewards of the equities before and after a bar."""
    equities = jax.ShapeDtypeStruct((2,), jnp.float32)
    try:
        shape = jax.eval_shape(reward, equities, equities).shape
    except Exception as error:  # whatever the user's code raises
        raise ValueError(
            f"{setting('reward', reward)} must take the equities before and after a bar, as arrays of JAX, and fails "
            f"on them ({type(error).__name__}: {' '.join(str(error).split()):.200})"
        ) from error
    if shape not in ((), (2,)):
        raise ValueError(f"{setting('reward', reward)} makes an array of shape {shape} of the equities of 2 accounts")


def observed(reward: Any) -> tuple[str, ...]:
    """Return the names of the numbers of the reward's state that a decision sees."""
    return reward.observed if isinstance(reward, MoveReward) else ()


# --- for files ---


def to_dict(reward: Any) -> dict[str, Any]:
    """Return a reward as plain data. A user's own reward is described by its name and what it observes."""
    if type(reward) in _BY_NAME.values():
        return {"name": type(reward).__name__, **asdict(reward)}
    name = getattr(reward, "__qualname__", type(reward).__name__)
    names = observed(reward)
    return {"name": name, "custom": True, **({"observed": list(names)} if names else {})}


def observed_in(stored: dict[str, Any]) -> tuple[str, ...]:
    """Return `observed` of the reward that `to_dict` described."""
    return tuple(stored.get("observed", ())) if stored.get("custom") else observed(from_dict(stored))


def from_dict(stored: dict[str, Any]) -> Any:
    """Return the reward that `to_dict` described, or `LogReturn` in place of a user's own.

    Raises:
        ValueError: the name is unknown, a setting is none of that reward, or decisions see the state of a user's own
            reward, which no file holds.
    """
    name, names = stored["name"], ", ".join(stored.get("observed", ()))
    if names:
        raise ValueError(
            f"decisions see the {names} of the reward {name}, which the file does not hold; give it again as `reward`"
        )
    if stored.get("custom"):
        return LogReturn()
    if name not in _BY_NAME:
        raise ValueError(f"the reward {name} is unknown; known are {', '.join(_BY_NAME)}")
    return parse({key: value for key, value in stored.items() if key != "name"}, _BY_NAME[name], f"the reward {name}")


_BY_NAME: dict[str, Any] = {
    cls.__name__: cls for cls in (LogReturn, RiskPenalized, OverBenchmark, DrawdownPenalized, DifferentialRatio)
}
