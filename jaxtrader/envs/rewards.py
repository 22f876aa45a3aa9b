"""What the agent is paid for a bar: a pure, hashable function of the two marks around it, or a `MoveReward`.

A reward is static configuration of the environment. The equity after ruin may be negative, so every reward works on
the floored values: rewards stay finite (money rule 7), and an account that lives on below the floor earns 0 there.

A `MoveReward` sees the whole move and may keep a state of its own from bar to bar, which the environment carries in
the account, begins anew with every account, and shows to the agent as far as the reward says.
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

from jaxtrader.envs.account import Account, Bar

FLOOR = 1e-4  # of the initial capital; log(FLOOR) is the worst log return that a bar can pay
FLOOR_SHARE = 0.1  # of a DifferentialRatio's `volatility`: the deviation below which it takes returns for noise


class Reward(Protocol):
    """`reward(before, after)`: equity at the mark of this bar and of the next, any shape, to a reward of that shape."""

    def __call__(self, before: Array, after: Array) -> Array:
        """The reward of moving from one mark to the next."""
        ...


@dataclass(frozen=True)
class Move:
    """One bar as a `MoveReward` sees it. What it does not read is not computed.

    Attributes:
        before: the account at close[t].
        after: the account at close[t+1], before any restart.
        bar: the prices between the two, `[*b, asset]`.
    """

    before: Account
    after: Account
    bar: Bar

    @property
    def log_return(self) -> Float[Array, "*b"]:
        """log(after / before) of the equity, each floored at FLOOR."""
        return LogReturn()(self.before.equity, self.after.equity)

    @property
    def simple_return(self) -> Float[Array, "*b"]:
        """after / before - 1 of the equity, each floored at FLOOR."""
        return _simple(self.before.equity, self.after.equity)

    @property
    def benchmark(self) -> Float[Array, "*b"]:
        """Log return from close[t] to close[t+1] of equal shares of all assets; one that is missing counts as cash.

        One that is delisted counts with its last close, without the delisting return.
        """
        return jnp.log((self.bar.close / self.bar.prev_close).mean(-1))

    @property
    def exposure(self) -> Float[Array, "*b A"]:
        """Signed position value at close[t+1] / equity, the equity floored at FLOOR."""
        return self.after.units * self.bar.close / jnp.maximum(self.after.equity, FLOOR)[..., None]


class MoveReward:
    """Base of a reward that sees the whole `Move`, and may keep a state from bar to bar.

    A subclass is pure and hashable (a frozen dataclass), like every reward. Without a state it overrides `__call__`
    only. The state is a pytree of arrays `[*b, ...]`, and must not depend on the level of equity: backtests rescale it.
    It begins with each account: at an episode's start and after ruin.

    Attributes:
        observed: names of the numbers of the state that the agent sees after its account features, k of them.
    """

    observed: ClassVar[tuple[str, ...]] = ()

    def begin(self, shape: tuple[int, ...], dtype: DTypeLike) -> Any:
        """The state of `shape` new accounts; None where there is no state."""
        return None

    def __call__(self, move: Move, state: Any) -> tuple[Float[Array, "*b"], Any]:
        """The reward of the move, and the state after it, of the same structure, shapes and dtypes."""
        raise NotImplementedError(f"{type(self).__name__} must say what it pays: override __call__(move, state)")

    def observe(self, state: Any) -> Float[Array, "*b k"]:
        """The bounded numbers of the state named in `observed`. A decision needs them where the reward does."""
        raise NotImplementedError(f"{type(self).__name__} names {self.observed}: override observe(state)")


def _simple(before: Array, after: Array) -> Array:
    return jnp.maximum(after, FLOOR) / jnp.maximum(before, FLOOR) - 1


@dataclass(frozen=True)
class LogReturn:
    """The log return between the marks: rewards add up to the log of the final mark, or of FLOOR if that is more."""

    def __call__(self, before: Array, after: Array) -> Array:
        """The log return between the marks."""
        return jnp.log(jnp.maximum(after, FLOOR) / jnp.maximum(before, FLOOR))


@dataclass(frozen=True)
class RiskPenalised:
    """log return - (lam / 2) r^2, r = after / before - 1: log utility with an extra price on variance.

    The second-order expansion of power utility with relative risk aversion 1 + lam (Merton 1969): E log(1 + r) already
    charges variance / 2, this adds lam / 2 more.
    """

    lam: float = 5.0

    def __call__(self, before: Array, after: Array) -> Array:
        """The penalised log return between the marks."""
        simple = _simple(before, after)
        return jnp.log1p(simple) - 0.5 * self.lam * simple**2


@dataclass(frozen=True)
class OverBenchmark(MoveReward):
    """log(after / before) - log(mean over assets of close[t+1] / close[t]): the log return over that of the market.

    The benchmark holds equal shares of all assets, balanced again at every close, free of cost (the 1/N portfolio of
    DeMiguel, Garlappi and Uppal 2009); of one asset that is buy-and-hold. An asset whose bar is missing is held as
    cash. Rewards add up to log(E_T / E_0) less the benchmark's log growth, with E floored at FLOOR. No action moves the
    benchmark: in markets that no ruin ends, the best policy is that of the log return, and what is taken off is the
    noise that all actions share.
    """

    def __call__(self, move: Move, state: None) -> tuple[Float[Array, "*b"], None]:
        """The log return over the benchmark's."""
        return move.log_return - move.benchmark, state


@dataclass(frozen=True)
class DrawdownPenalised(MoveReward):
    """r - lam (d' - d): log return less the increase of drawdown; d = log(peak / equity) since the account began.

    d' = max(d - r, 0). (The increase alone, without the refund of a recovery, would be max(-r, 0) and know of no
    peak.) Without discount, rewards add up to log(E_T / E_0) - lam d_T. With the agent's discount gamma they are worth
    the sum of gamma^t (r - lam (1 - gamma) d'): the drawdown itself is charged, bar by bar (potential-based shaping,
    Ng, Harada and Russell 1999; the average drawdown is a measure of risk of Chekhlov, Uryasev and Zabarankin 2005).
    The agent sees 1 - exp(-d), the drawdown as a share of the peak.
    """

    lam: float = 1.0

    observed: ClassVar[tuple[str, ...]] = ("drawdown",)

    def begin(self, shape: tuple[int, ...], dtype: DTypeLike) -> Float[Array, "*b"]:
        """No drawdown."""
        return jnp.zeros(shape, dtype)

    def __call__(self, move: Move, state: Float[Array, "*b"]) -> tuple[Float[Array, "*b"], Float[Array, "*b"]]:
        """The penalised log return, and the drawdown after it."""
        earned = move.log_return
        drawdown = jnp.maximum(state - earned, 0)
        return earned - self.lam * (drawdown - state), drawdown

    def observe(self, state: Float[Array, "*b"]) -> Float[Array, "*b 1"]:
        """The drawdown as a share of the peak, in [0, 1)."""
        return -jnp.expm1(-state)[..., None]


@dataclass(frozen=True)
class DifferentialRatio(MoveReward):
    """What a bar's return adds to a moving Sharpe ratio, or downside ratio, to first order in eta.

    With r = after / before - 1, the moving moments A' = A + eta dA and B' = B + eta dB, where dA = r - A and
    dB = r^2 - B, pay the differential Sharpe ratio

        D = (B dA - A dB / 2) / (B - A^2)^(3/2),

    the derivative of A' / sqrt(B' - A'^2) by eta at 0; with dB = min(r, 0)^2 - B the differential downside deviation
    ratio D = dA / sqrt(B) - A dB / (2 B^(3/2)), of A' / sqrt(B'). Both: Moody and Saffell 2001, Learning to trade via
    direct reinforcement, IEEE Trans. Neural Networks 12(4). A sum of eta D is the growth of the ratio, to first order.

    Two things are ours. The formula is 0 / 0 at the start and explodes after a rest out of the market, so the moments
    begin at A = 0, B = volatility^2, and both variances have (volatility / 10)^2 added: below that, returns are taken
    for noise and D tends to 10 r / volatility. And a ratio below 0 is raised by variance, so that a crash would pay:
    ruin pays no more than dA / deviation. The agent sees the moving ratio, clipped to [-2, 2], and the log of the
    moving deviation over `volatility`, clipped to [-3, 3].

    Attributes:
        eta: weight of the newest bar, in (0, 1): the moments look back over some 1 / eta bars.
        volatility: the usual deviation of a bar's return: 0.01 for daily stocks, less on shorter bars.
        downside: whether only losses count as risk.
    """

    eta: float = 0.01
    volatility: float = 0.01
    downside: bool = False

    observed: ClassVar[tuple[str, ...]] = ("moving ratio", "moving deviation")

    def begin(self, shape: tuple[int, ...], dtype: DTypeLike) -> tuple[Float[Array, "*b"], Float[Array, "*b"]]:
        """A and B of a mean return of 0 and the usual deviation."""
        return jnp.zeros(shape, dtype), jnp.full(shape, self.volatility**2, dtype)

    def __call__(
        self, move: Move, state: tuple[Float[Array, "*b"], Float[Array, "*b"]]
    ) -> tuple[Float[Array, "*b"], tuple[Float[Array, "*b"], Float[Array, "*b"]]]:
        """D, and the moments after the bar."""
        mean, second = state
        simple = move.simple_return
        square = jnp.minimum(simple, 0) ** 2 if self.downside else simple**2
        surprise = simple - mean
        variance, deviation = self._risk(state)
        # D as derivative of A / sqrt(V): dA / sqrt(V) - A dV / (2 V^1.5). Of V = B - A^2, dV is dA^2 - V: in this form
        # float32 loses nothing in B - A^2, and nothing is raised to a power that it cannot hold.
        change = square - second if self.downside else surprise**2 - variance
        first = surprise / deviation
        paid = first - 0.5 * (mean / deviation) * (change / deviation**2)
        paid = jnp.where(move.after.ruined, jnp.minimum(paid, first), paid)
        return paid, (mean + self.eta * surprise, second + self.eta * (square - second))

    def observe(self, state: tuple[Float[Array, "*b"], Float[Array, "*b"]]) -> Float[Array, "*b 2"]:
        """The moving ratio and the log of the moving deviation over the usual one, clipped."""
        _, deviation = self._risk(state)
        ratio, risk = state[0] / deviation, jnp.log(deviation / self.volatility)
        return jnp.stack([jnp.clip(ratio, -2, 2), jnp.clip(risk, -3, 3)], -1)

    def _risk(self, state: tuple[Array, Array]) -> tuple[Float[Array, "*b"], Float[Array, "*b"]]:
        """The moving variance, and the deviation with the floor in it."""
        mean, second = state
        variance = second if self.downside else jnp.maximum(second - mean**2, 0)
        return variance, jnp.sqrt(variance + (FLOOR_SHARE * self.volatility) ** 2)


def log_return() -> Reward:
    """The log return between the marks (the default)."""
    return LogReturn()


def risk_penalised(lam: float) -> Reward:
    """Log return - (lam / 2) r^2, with r the simple return between the marks. Raises ValueError where lam < 0."""
    if not 0 <= lam < math.inf:
        raise ValueError(f"risk_penalised(lam={lam}) must have a finite lam >= 0: below, it would pay for risk")
    return RiskPenalised(float(lam))


def over_benchmark() -> MoveReward:
    """The log return over that of equal shares of all assets, see `OverBenchmark`."""
    return OverBenchmark()


def drawdown_penalised(lam: float) -> MoveReward:
    """Log return - lam times the increase of drawdown, see `DrawdownPenalised`. Raises ValueError where lam < 0."""
    if not 0 <= lam < math.inf:
        raise ValueError(f"drawdown_penalised(lam={lam}) must have a finite lam >= 0: below, it would pay for losses")
    return DrawdownPenalised(float(lam))


def differential_sharpe(eta: float = 0.01, volatility: float = 0.01) -> MoveReward:
    """The differential Sharpe ratio of Moody and Saffell, see `DifferentialRatio`.

    Raises ValueError where eta is outside (0, 1) or volatility is not above 0.
    """
    return _differential("differential_sharpe", eta, volatility, downside=False)


def differential_downside(eta: float = 0.01, volatility: float = 0.01) -> MoveReward:
    """The differential downside deviation ratio of Moody and Saffell, see `DifferentialRatio`; raises likewise."""
    return _differential("differential_downside", eta, volatility, downside=True)


def _differential(name: str, eta: float, volatility: float, downside: bool) -> MoveReward:
    if not 0 < eta < 1:
        raise ValueError(f"{name}(eta={eta}) is outside (0, 1): it is the newest bar's weight, such as 0.01")
    if not 0 < volatility < math.inf:
        raise ValueError(
            f"{name}(volatility={volatility}) must be finite and above 0: the deviation of a bar's return, such as 0.01"
        )
    return DifferentialRatio(float(eta), float(volatility), downside)


# --- what the environment asks ---


def checked(reward: Any) -> Any:
    """The reward; ValueError where it is no function, has no hash, or does not observe what it names."""
    if not callable(reward):
        raise ValueError(f"reward {reward!r} must be a function of two marks such as rewards.log_return()")
    try:
        hash(reward)
    except TypeError as error:
        raise ValueError(f"reward {reward!r} has no hash; make its class a frozen dataclass") from error
    if isinstance(reward, MoveReward) and reward.observed:
        seen = jax.eval_shape(lambda: reward.observe(reward.begin((2,), jnp.float32))).shape
        if seen != (2, len(reward.observed)):
            raise ValueError(
                f"reward {reward!r} observes an array of shape {seen} for 2 accounts; with the names "
                f"{', '.join(reward.observed)} it must be (2, {len(reward.observed)})"
            )
    return reward


def observed(reward: Any) -> tuple[str, ...]:
    """Names of the numbers of the reward's state that a decision sees."""
    return reward.observed if isinstance(reward, MoveReward) else ()


# --- in files ---


def to_dict(reward: Any) -> dict[str, Any]:
    """A reward as plain data for config and policy files; a user's own by its name and what it observes."""
    if type(reward) in _BY_NAME.values():
        return {"name": type(reward).__name__, **asdict(reward)}
    name = getattr(reward, "__qualname__", type(reward).__name__)
    names = observed(reward)
    return {"name": name, "custom": True, **({"observed": list(names)} if names else {})}


def observed_in(stored: dict[str, Any]) -> tuple[str, ...]:
    """`observed` of the reward that `to_dict` described."""
    return tuple(stored.get("observed", ())) if stored.get("custom") else observed(from_dict(stored))


def from_dict(stored: dict[str, Any]) -> Any:
    """The reward that `to_dict` described.

    A user's own is not stored: log return stands in, since to act needs no reward. Raises ValueError where acting does
    need it, because the agent sees its state, and where the name is unknown.
    """
    name, names = stored["name"], ", ".join(stored.get("observed", ()))
    if names:
        raise ValueError(
            f"decisions see the {names} of the reward {name}, which the file does not hold; give it again: reward=..."
        )
    if stored.get("custom"):
        return LogReturn()
    if name not in _BY_NAME:
        raise ValueError(f"the reward {name} is unknown; known are {', '.join(_BY_NAME)}")
    return _BY_NAME[name](**{key: value for key, value in stored.items() if key != "name"})


_BY_NAME: dict[str, Any] = {
    cls.__name__: cls for cls in (LogReturn, RiskPenalised, OverBenchmark, DrawdownPenalised, DifferentialRatio)
}
