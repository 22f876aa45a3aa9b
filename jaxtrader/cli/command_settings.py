"""Settings of the command line alone: where data come from, what is trained, tested or shown, and how a command runs.

Their docstrings are the help of the flags. This module imports neither JAX nor pandas, so that help is instant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from jaxtrader.training.train_settings import Refit

# Text that help shows as such.
File = Annotated[str | None, "FILE"]
Folder = Annotated[str | None, "FOLDER"]
Day = Annotated[str | None, "DAY"]
Length = Annotated[str | None, "LENGTH"]

Check = Literal["past_only", "plausible", "one_bar_late", "oracle", "shuffled"]
# fmt: off
Reward = Literal[
    "log_return", "risk_penalized", "over_benchmark", "drawdown_penalized",
    "differential_sharpe", "differential_downside",
]
# fmt: on


@dataclass(frozen=True, kw_only=True)
class Source:
    """How a price file is read.

    Attributes:
        symbols: The symbols to use, such as AAPL,MSFT. By default all of the file are used.
        tz: The zone of the exchange's clock, such as America/New_York. Stamps without an offset are read in it.
            Sessions, weekdays and dates are of it. By default it is that of the stamped offsets, or UTC.
        label: The end of its bar that a time stamp marks, "close" or "open". Or by symbol, such as BTC=open,ETH=open.
            Others mark the close.
        repair: "clip" widens high and low to the bar's open and close, and sets a missing volume to 0. "adjust" scales
            open, high and low where the close alone is adjusted. "drop" leaves out the rows that break a rule of bars,
            such as those without prices, where they are 5% at most.
        adjust: Whether prices are adjusted where the file has an adjusted close, dividends or splits.
        decimal: The decimal mark of numbers such as 1,002, of which the file does not show whether their comma is one.
        min_bars: A symbol with fewer bars is left out, and so is one that is too short for the features.
    """

    symbols: tuple[str, ...] | None = None
    tz: str | None = None
    label: str = "close"
    repair: Literal["clip", "adjust", "drop"] | None = None
    adjust: bool = True
    decimal: Literal[".", ","] | None = None
    min_bars: int = 1


@dataclass(frozen=True, kw_only=True)
class MarketSettings:
    """How bars become a market.

    Attributes:
        periods_per_year: The number of bars in a year, by which figures are annualised. By default it is found from the
            times in the file.
        delisted_after: The days without a bar after which an asset of a portfolio counts as delisted, while others have
            bars. Or "never". The wait must also be above three times the asset's longest so far.
    """

    periods_per_year: float | None = None
    delisted_after: float | Literal["never"] = 14.0


@dataclass(frozen=True, kw_only=True)
class TrainData:
    """The bars to train on.

    Attributes:
        data: A CSV or Parquet file with bars, or a folder or zip archive of them. By default the bundled daily stocks
            AAPL, IBM, MSFT and GOOG are used.
        synthetic: Trains on a generated market whose best policy is known, and shows how much of it is found.
        features: What a decision sees of the market: built-in features such as log_return_20,gap, or columns of the
            file. By default there are seven. `jaxtrader check` also takes FILE.py:NAME, a Feature of your own from a
            Python file, which it runs.
        portfolio: Whether one account trades all symbols. Otherwise each symbol has accounts of its own.
        train_end: The last day of training, such as 2007-12-31, or its last moment. By default training has 70% of a
            file's calendar, and ends on 2007-12-31 for the bundled stocks.
        valid_end: The last day of validation. All later bars are the test. By default validation has 15% of a file's
            calendar, and ends on 2010-12-31 for the bundled stocks.
    """

    data: File = None
    synthetic: Literal["ar1", "mean_reversion", "random_walk", "hidden_regime"] | None = None
    features: tuple[str, ...] | None = None
    portfolio: bool = False
    train_end: Day = None
    valid_end: Day = None


@dataclass(frozen=True, kw_only=True)
class RewardSettings:
    """What a bar pays.

    Attributes:
        reward: What a bar pays, as `jaxtrader.rewards` names it. "risk_penalized" is the log return less half of
            risk_aversion times the squared return. "over_benchmark" is the log return less that of equal shares of all
            assets. "drawdown_penalized" is the log return less risk_aversion times the increase of drawdown. The last
            two are the differential Sharpe ratio and downside deviation ratio.
        risk_aversion: The weight of risk in the reward. By default it is 5 for "risk_penalized" and 1 for
            "drawdown_penalized". The other rewards take none.
    """

    reward: Reward = "log_return"
    risk_aversion: float | None = None


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """How the command runs.

    Attributes:
        config: A TOML file with settings, by the names of these flags. A flag that is typed wins over the file. With
            the config.toml of a run, `jaxtrader train` repeats that run.
        resume: The folder of a run that ended early. It goes on with its own settings, as if it had never stopped. Only
            its length may be given anew, as --total-steps.
        init_from: The folder of an earlier run, or its policy file. Training starts from its weights and its scales of
            the features. The features, positions and network must be the same.
        patience: The number of validations in a row that may be no better than the best before training ends. By
            default it goes on to its length.
        log_to: Where the figures of the training are logged as well. Each needs the extra of its name. TensorBoard's
            folder is `tensorboard` in the run's.
        dry_run: Checks everything, prints the plan and a time estimate, and writes nothing.
        quiet: Prints only the result.
        trials: The number of policies that were tried on the test bars elsewhere. Those of this folder of runs are
            counted by themselves, in evaluations.jsonl.
        report: Whether report.html, report.png and the tables of the test are written.
        only: The checks to run, with commas. The first two take a moment, and the others train an agent. By default all
            five are run.
    """

    config: File = None
    resume: Folder = None
    init_from: Folder = None
    patience: int | None = None
    log_to: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] | None = None
    dry_run: bool = False
    quiet: bool = False
    trials: int = 0
    report: bool = True
    only: tuple[Check, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class HostSettings:
    """Which processes train together. Each of them runs the same command.

    Attributes:
        distributed: Trains together with other processes, such as one on each host, on all their devices. Process 0
            prints and writes. Under Slurm, Open MPI, Kubernetes and on TPU pods this flag is all. Elsewhere the three
            flags below say which process this is.
        coordinator: HOST:PORT of process 0, the same for all processes. The port must be free there.
        num_processes: The number of processes.
        process_id: Which process this is, from 0.
    """

    distributed: bool = False
    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None


@dataclass(frozen=True, kw_only=True)
class FoldSettings:
    """How the bars are cut into folds.

    Attributes:
        folds: The number of folds. Their tests divide the bars after the first training. By default it is 5, or follows
            from --test.
        train: The length of the first training with its validation, as a number of bars, or as 2y, 6mo, 8w, 90d or 12h.
            By default it is half of the bars.
        test: The length of each test, written likewise.
        valid: The share of the training, at its end, on which the best policy is chosen.
        anchored: Whether each training begins at the first bar. Otherwise it rolls, with the length of the first one.
        embargo: The number of bars left out at the end of the training, and at the end of the validation.
        refit: "fresh" trains each fold from new weights. "warm" starts from the policy of the fold before.
    """

    folds: int | None = None
    train: Length = None
    test: Length = None
    valid: float = 0.2
    anchored: bool = False
    embargo: int = 0
    refit: Refit = "fresh"


@dataclass(frozen=True, kw_only=True)
class SweepSettings:
    """What is swept, and where it is saved.

    Attributes:
        file: A TOML file with settings of `jaxtrader train`, and a table [sweep] with a list of values for each setting
            that is swept.
        run_dir: The folder of the sweep, with a run folder for each configuration. By default it is runs/NAME, after
            the file. A sweep that has begun there goes on where it stopped.
    """

    file: str
    run_dir: Folder = None


@dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """Of which run.

    Attributes:
        run: The folder of a run of `jaxtrader train` or `jaxtrader walk-forward`.
        data: The file with the run's data, where it has been moved.
        open: Whether the report is opened in the browser.
    """

    run: str
    data: File = None
    open: bool = False


@dataclass(frozen=True, kw_only=True)
class CompareSettings:
    """Which runs.

    Attributes:
        runs: The folders of two runs or more, of `jaxtrader train` or `jaxtrader walk-forward`. Each is compared with
            the first, on the bars of the tests that all have.
        page: Whether comparison.html is written, in the folder around the first run.
        open: Whether the page is opened in the browser.
    """

    runs: tuple[str, ...]
    page: bool = True
    open: bool = False


@dataclass(frozen=True, kw_only=True)
class WatchSettings:
    """Which run to watch.

    Attributes:
        run: The folder of a run.
    """

    run: str


@dataclass(frozen=True, kw_only=True)
class OwnCode:
    """Code of the user's own that a policy needs.

    Attributes:
        network: The Flax module that the policy was trained with, as FILE.py:CLASS. That file is run.
    """

    network: str | None = None


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """What to export, and as what.

    Attributes:
        run: The folder of a run, or a policy file.
        to: The format. "onnx" needs `pip install 'jaxtrader[onnx]'`. "stablehlo" is for `jax.export.deserialize`.
        save: The file to write. By default it is policy.onnx or policy.stablehlo beside the policy.
    """

    run: str
    to: Literal["onnx", "stablehlo"] = "onnx"
    save: str | None = None


@dataclass(frozen=True, kw_only=True)
class BacktestData:
    """The policy, and the bars to test it on.

    Attributes:
        run: The folder of a run of `jaxtrader train` or `jaxtrader walk-forward`, or a policy file.
        data: Another file with bars, which are all used. By default the policy is tested on its own data.
        part: The part of its own data that is used. By default it is the test part.
        start: The first day, such as 2011-01-01.
        end: The last day.
        save: The folder for equity.csv, trades.csv, fills.csv and result.json. By default nothing is saved.
    """

    run: str
    data: File = None
    part: Literal["train", "valid", "test", "all"] | None = None
    start: Day = None
    end: Day = None
    save: Folder = None


@dataclass(frozen=True, kw_only=True)
class DecideSettings:
    """Which policy decides, and on which bars.

    Attributes:
        run: The folder of a run of `jaxtrader train`, or a policy file. The account is kept in its folder `live`.
        data: A file with the bars up to now. It is read as the data of training were. By default it is that file.
        position: The exposure that is held now: position value / equity, 0.5 is one half. Of several symbols, one
            number each. The account begins anew with it. By default the account that was kept goes on, and the first
            one begins flat.
        json: Whether one line of JSON is printed for each account, for a script.
    """

    run: str
    data: File = None
    position: tuple[float, ...] | None = None
    json: bool = False


@dataclass(frozen=True, kw_only=True)
class DataFile:
    """The file to look at.

    Attributes:
        file: A CSV or Parquet file with bars, or a folder or zip archive of them.
    """

    file: str
