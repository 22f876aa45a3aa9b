"""The configuration of each command as a frozen dataclass: its fields are the flags, their docstrings the help.

All defaults of the command line stand here and nowhere else. No JAX, no pandas: help is instant.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import tyro

OK, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

PARTS = {"train": "train", "valid": "validation", "test": "test"}

Fill = Literal["next_open", "next_close", "close"]


class BadInput(Exception):
    """What the user gave cannot be used; the message is one sentence."""


class Failed(Exception):
    """The command could not finish; the message is one sentence."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """How a price file is read."""

    symbols: tuple[str, ...] | None = None
    """symbols to use, e.g. AAPL,MSFT; all of the file without it"""
    tz: str | None = None
    """zone of the file's clock, e.g. America/New_York; without it stamped offsets count, else UTC"""
    label: Literal["close", "open"] = "close"
    """which end of its bar a time stamp marks"""
    repair: Literal["clip"] | None = None
    """clip: widen high and low to the bar's open and close, and set a missing volume to 0"""
    no_adjust: bool = False
    """keep raw prices where the file has an adjusted close"""


@dataclass(frozen=True, kw_only=True)
class Money:
    """Costs and rules of trading beyond fee, slippage and fill. None: off in training, as in training in a backtest."""

    stop_loss: float | None = None
    """close a position within the bar at this loss from its entry price, e.g. 0.03; it stays closed until its target is
    0 or of the other sign, which weights never are"""
    take_profit: float | None = None
    """close it at this gain"""
    maintenance_margin: float | None = None
    """equity / position value below which all is liquidated; with leverage half of the initial margin without it"""
    delay: int | None = None
    """bars that an order waits longer"""
    capital: float | None = None
    """initial capital in the market's currency, of each account; the next five need it"""
    fixed_fee: float | None = None
    """currency for each fill"""
    lot: float | None = None
    """raw shares in a lot; orders are rounded to whole lots"""
    min_trade: float | None = None
    """currency; smaller orders are dropped"""
    impact: float | None = None
    """slippage grows by this * volatility * sqrt(order / traded value of a bar); about 1"""
    volume_cap: float | None = None
    """an order's most, as a share of the traded value of an average bar"""
    cash_rate: float | None = None
    """interest a year on idle cash, e.g. 0.02"""
    borrow_rate: float | None = None
    """interest a year on debt"""
    short_rate: float | None = None
    """fee a year on the value of short positions"""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Money, Source):
    """Train a policy on price bars, select it on validation, test it, and save it."""

    data: str | None = None
    """CSV or Parquet file with bars; without it the bundled daily stocks AAPL, IBM, MSFT, GOOG"""
    synthetic: Literal["ar1", "mean-reversion", "random-walk"] | None = None
    """a generated market whose best policy is known, instead of bars: shows how much of it training finds"""
    features: tuple[str, ...] | None = None
    """what a decision sees of the market, e.g. momentum_20,gap or columns of the file; without it the default seven"""
    train_end: str | None = None
    """last day of training, YYYY-MM-DD; bundled stocks 2007-12-31, a file is cut 70/15/15 without dates"""
    valid_end: str | None = None
    """last day of validation; bundled stocks 2010-12-31; what follows is the test"""
    fee_bps: float = 1.0
    """fee, basis points of the traded value"""
    slippage_bps: float = 5.0
    """slippage with half the spread, basis points of the price, against you"""
    fill: Fill = "next_open"
    """where a decision made at a bar's close fills; close is optimistic"""
    rebalance_band: float | None = None
    """no trade smaller than this share of equity; 0.05, on synthetic markets 0"""
    positions: tuple[float, ...] | Literal["continuous", "weights"] | None = None
    """exposures to choose from, e.g. -1,0,1; continuous: any in [-leverage, leverage]; weights: any in [0, 1]; without
    it 0,0.25,0.5,0.75,1 (times a leverage below 1), on synthetic markets -1,0,1, of a portfolio weights"""
    delay: int | None = 0
    """bars that an order waits longer"""
    leverage: float = 1.0
    """most exposure in all; above 1 on credit, with a maintenance margin"""
    flat_at_session_end: bool = False
    """close everything at the close of each trading session"""
    portfolio: bool = False
    """one account over all symbols, with continuous exposures or weights, instead of an account for each"""
    reward: Literal["log", "over-benchmark", "drawdown", "sharpe", "downside"] = "log"
    """what a bar pays: log return; less that of equal shares of all assets; less lambda * the increase of drawdown;
    differential Sharpe or downside deviation ratio"""
    risk_aversion: float | None = None
    """lambda of the reward; log pays log return - lambda / 2 * return^2, 0 is the log return; 5 for log on bars and 1
    for drawdown, else 0"""
    decision_every: int = 1
    """bars between two decisions"""
    window: int = 1
    """bars of features that a decision sees"""
    episode_length: int = 256
    """bars"""
    num_envs: int = 256
    """parallel accounts"""
    agents_per_lane: int = 1
    """accounts that share one path of bars"""
    rollout_length: int = 64
    """bars between two updates; divides the episode length"""
    total_steps: int | None = None
    """bars to train, summed over all accounts; 2,000,000, on synthetic markets 4,000,000, unless the number of episodes
    is given"""
    num_episodes: int | None = None
    """episodes to train instead, summed over all accounts"""
    learning_rate: float = 1e-3
    """step size of Adam at the start; decays to 0"""
    gamma: float = 0.99
    """discount a bar"""
    gae_lambda: float = 0.95
    """decay of the advantage trace a bar"""
    entropy_coef: float | None = None
    """weight of the entropy bonus; 0.01 where positions are a choice, else 0"""
    log_std_init: float | None = None
    """of continuous positions, the logarithm of the deviation at the start, in units of the leverage limit (of weights,
    of their log ratios); given alone it is learnt from there"""
    log_std_final: float | None = None
    """the same at the end, led there as training goes on; without both flags from 0 to -1.75 (of weights learnt from
    0)"""
    num_epochs: int = 4
    """passes over a rollout"""
    num_minibatches: int = 4
    """parts of a pass; divides the paths (accounts / accounts a path)"""
    hidden: tuple[int, ...] = (32, 32)
    """widths of the network's layers, e.g. 64,64"""
    encoder: Literal["mlp", "tcn", "attention"] = "mlp"
    """what reads the window: mlp, tcn (dilated causal convolutions) or attention (causal, local)"""
    encoder_width: int = 32
    """channels of tcn and attention"""
    encoder_depth: int | None = None
    """layers of tcn and attention; without it as many as tcn needs with kernels of two bars, 2 of attention"""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """of the encoder and hidden layers; bfloat16 is for accelerators, weights and money stay as they are"""
    eval_every: int = 10
    """updates between two validations"""
    devices: int = 1
    """devices to train on, each with a part of the environments and random numbers of its own; a CPU is split into so
    many: 2 on two cores train most networks faster, and validate and compile as 1 does"""
    seed: int = 0
    """of all that is random"""
    run_dir: str | None = None
    """folder for the results, new or empty; without it the next free runs/NAME-0001"""
    dry_run: bool = False
    """check everything, print the plan and a time estimate, write nothing"""
    quiet: bool = False
    """print only the result"""

    # What stands for None above, where it depends on other flags.
    BUNDLED: ClassVar[tuple[str, ...]] = ("AAPL", "IBM", "MSFT", "GOOG")
    BUNDLED_TRAIN_END: ClassVar[str] = "2007-12-31"
    BUNDLED_VALID_END: ClassVar[str] = "2010-12-31"
    SHARES: ClassVar[tuple[float, ...]] = (0.7, 0.15, 0.15)  # of a file's calendar: train, validation, test

    def resolved(self) -> TrainConfig:
        """The same with every None that depends on other flags filled in."""
        bars = {"rebalance_band": 0.05, "positions": (0.0, 0.25, 0.5, 0.75, 1.0), "risk_aversion": 5.0}
        synthetic = {"rebalance_band": 0.0, "positions": (-1.0, 0.0, 1.0), "risk_aversion": 0.0}
        defaults: dict[str, Any] = bars if self.synthetic is None else synthetic
        if self.portfolio:
            defaults["positions"] = "weights"
        elif 0 < self.leverage < 1 and self.synthetic is None:  # or it would refuse what nobody asked for
            defaults["positions"] = tuple(round(self.leverage * p, 9) for p in defaults["positions"])
        if self.reward != "log":
            defaults["risk_aversion"] = 1.0 if self.reward == "drawdown" else 0.0
        if self.num_episodes is None:
            defaults["total_steps"] = 2_000_000 if self.synthetic is None else 4_000_000
        return replace(self, **{name: value for name, value in defaults.items() if getattr(self, name) is None})


@dataclass(frozen=True, kw_only=True)
class BacktestConfig(Money, Source):
    """Backtest a trained policy: on the test part of its own data, or on all bars of another file."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """run folder, or policy file"""
    data: str | None = None
    """another file with bars (all of them are used)"""
    part: Literal["train", "valid", "test", "all"] | None = None
    """part of the data it was trained with; test without it"""
    start: str | None = None
    """first day, YYYY-MM-DD"""
    end: str | None = None
    """last day, YYYY-MM-DD"""
    fee_bps: float | None = None
    """fee, basis points; without it as in training, as all that follow"""
    slippage_bps: float | None = None
    """slippage, basis points"""
    fill: Fill | None = None
    """where decisions fill"""
    rebalance_band: float | None = None
    """no trade smaller than this share of equity"""
    save: str | None = None
    """folder for equity.csv and trades.csv"""


@dataclass(frozen=True, kw_only=True)
class DataConfig(Source):
    """Say what is in a data file, and what is wrong with it."""

    file: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="FILE")]
    """CSV or Parquet file with bars"""


@dataclass(frozen=True, kw_only=True)
class CheckConfig(Source):
    """Check a market and its features for leaks, and that an agent learns on it: five checks, each passes or fails."""

    data: str | None = None
    """CSV or Parquet file with bars; without it the bundled daily stocks AAPL, IBM, MSFT, GOOG"""
    features: tuple[str, ...] | None = None
    """as in train; also FILE.py:NAME for a Feature of your own, from a Python file that is run"""
    only: tuple[str, ...] | None = None
    """checks to run, of past-only,plausible,one-bar-late,oracle,shuffled; the first two take a moment, the others train
    an agent; all five without it"""
    fee_bps: float = 1.0
    """fee, basis points of the traded value"""
    slippage_bps: float = 5.0
    """slippage, basis points; with the fee at most a tenth of the mean move, so that costs hide no leak"""
    fill: Fill = "next_open"
    """where a decision made at a bar's close fills"""
    rebalance_band: float = 0.05
    """no trade smaller than this share of equity"""
    positions: tuple[float, ...] = (-1.0, 0.0, 1.0)
    """exposures to choose from; long and short, so that a leak of either sign is found"""
    seed: int = 0
    """of all that is random"""


Config = TrainConfig | BacktestConfig | DataConfig | CheckConfig
COMMANDS: dict[str, type[Config]] = {
    "train": TrainConfig,
    "backtest": BacktestConfig,
    "data": DataConfig,
    "check": CheckConfig,
}
