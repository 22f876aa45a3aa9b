"""From words and TOML files to settings: every flag derives from a dataclass, and what is wrong is one sentence."""

import dataclasses
import inspect
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

import jaxtrader as jt
from jaxtrader.cli import flags, inputs, main, settings
from jaxtrader.cli.command_settings import Check, FoldSettings, MarketSettings, Reward, RewardSettings, Source
from jaxtrader.cli.flags import parse
from jaxtrader.cli.settings import COMMANDS, RISK_AVERSION, SYNTHETIC, TRAIN, BadInput, of, resolved
from jaxtrader.cli.value_types import help_texts
from jaxtrader.cli.walk_forward_command import plan_walk_forward
from jaxtrader.ledger.cost_rates import CostRates
from jaxtrader.market.folds import walk_forward_folds

ROOT = Path(jt.__file__).parents[1]
PARTS = [(name, part) for name, command in COMMANDS.items() for part in command.flags]
DERIVED = [(name, part.settings, field) for name, part in PARTS for field in part.fields]


def given(*argv):
    """The settings that the words give to a command."""
    asked = parse(argv)
    assert asked is not None
    return asked[1]


def refused(*argv):
    """The one sentence with which the words are refused."""
    with pytest.raises(BadInput) as caught:
        parse(argv)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def toml(folder, text):
    """A TOML file with that text."""
    (folder / "run.toml").write_text(text)
    return str(folder / "run.toml")


# --- defaults ---


@pytest.mark.parametrize(
    ("cls", "function", "shared"),
    [
        (Source, jt.load_bars, {"symbols", "tz", "label", "repair", "adjust", "decimal"}),
        (Source, jt.Market.from_bars, {"min_bars"}),
        (MarketSettings, jt.Market.from_bars, {"periods_per_year", "delisted_after"}),
        (FoldSettings, walk_forward_folds, {"folds", "train", "test", "valid", "anchored", "embargo"}),
        (FoldSettings, jt.walk_forward, {"folds", "refit"}),
    ],
)
def test_a_setting_of_the_command_has_the_default_of_the_argument_that_it_becomes(cls, function, shared):
    own = {field.name: field.default for field in dataclasses.fields(cls)}
    theirs = {name: one.default for name, one in inspect.signature(function).parameters.items() if name in own}
    assert theirs == {name: own[name] for name in shared}


def test_help_says_the_defaults_that_a_function_fills_in():
    texts = help_texts(RewardSettings)["risk_aversion"]
    for reward, aversion in RISK_AVERSION.items():
        assert f'{aversion:g} for "{reward}"' in texts
        assert inputs.reward(RewardSettings(reward=reward)).risk_aversion == aversion
    market = jt.Market.from_bars(jt.load_bundled("IBM"))
    assert f"By default it is {len(walk_forward_folds(market))}, or" in help_texts(FoldSettings)["folds"]


# --- help ---


def test_help_is_printed_without_loading_jax_or_pandas():
    program = """if True:
        import contextlib, io, sys
        from jaxtrader.cli import main
        for words in ("", "--help", "train --help", "train --help-all", "backtest -h", "data -h", "-V"):
            with contextlib.redirect_stdout(io.StringIO()) as out:
                assert main(words.split()) == 0, words
            assert ("Usage: jaxtrader" in out.getvalue()) == (words != "-V"), words
            assert not {"jax", "pandas", "flax", "gymnax", "numpy"} & set(sys.modules), words
        print(out.getvalue())
    """
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert jt.__version__ in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_the_first_flags_and_help_all_the_others_too(name, capsys):
    assert parse([name, "--help"]) is None
    some = capsys.readouterr().out
    assert parse([name, "--help-all"]) is None
    every = capsys.readouterr().out
    command = COMMANDS[name]
    for field in (field for part in command.flags for field in part.fields):
        flag = f"--{settings.key(field.name).replace('_', '-')} "
        if field.default is not dataclasses.MISSING:
            assert flag in every
            assert (flag in some) == (command.first is None or field.name in command.first)
    assert ("--help-all" in some) == (command.first is not None)
    titles = [line.split()[1].lower() for line in every.splitlines() if line.startswith("╭")]
    assert titles == sorted({part.group for part in command.flags}, key=flags.GROUPS.index)


def test_help_says_the_type_the_default_and_the_text_of_the_dataclass(capsys):
    parse(["train", "--help-all"])
    out = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--positions The target exposures" in out.replace("FLOATS|continuous|weights ", "")
    assert "--rebalance-band FLOAT The smallest trade, as a share of equity." in out
    assert "[default: with --synthetic 0]" in out
    assert "[choices: mlp, tcn, attention, gru, lru] [default: mlp]" in out


# --- flags and the dataclasses ---


@pytest.mark.parametrize(("name", "cls", "field"), DERIVED, ids=[f"{n}-{f.name}" for n, _, f in DERIVED])
def test_each_setting_has_its_help_in_its_dataclass_and_stands_once_in_a_command(name, cls, field):
    text = flags.help_texts(cls)[field.name]
    assert text[0].isupper() or text[0] == '"'
    assert text.endswith(".")
    assert [f.name for n, _, f in DERIVED if n == name].count(field.name) == 1


def test_the_tables_name_settings_that_exist():
    names = {field.name for name, _, field in DERIVED if name == "train"}
    assert set(TRAIN) | set(SYNTHETIC) | set(COMMANDS["train"].first) <= names
    for command in COMMANDS.values():
        assert set(command.first or ()) <= {field.name for part in command.flags for field in part.fields}
        for part in command.flags:
            assert {*(part.only or ()), *part.omit} <= {field.name for field in dataclasses.fields(part.settings)}


@pytest.mark.parametrize("cls", [jt.Rules, jt.Costs, jt.TradingEnv, jt.PPOAgent, jt.Trainer])
def test_train_has_the_defaults_of_the_api_but_for_a_table(cls):
    ours = resolved("train", {})
    bps = {name: ours.pop(f"{name}_bps") for name in settings.BPS}
    ours |= {name: None if given is None else given * 1e-4 for name, given in bps.items()}
    theirs = {field.name: field.default for field in dataclasses.fields(cls) if field.name in ours}
    assert len(theirs) >= 7
    # A reward has a name here, and is an object there.
    assert {name for name, value in theirs.items() if ours[name] != value} - {"reward"} <= set(TRAIN)


def test_a_backtest_is_given_only_what_was_typed():
    assert resolved("backtest", given("backtest", "run", "--stop-loss", "none", "--fee-bps", "20")) == {
        "run": "run",
        "stop_loss": None,
        "fee_bps": 20.0,
    }
    assert of(CostRates, given("backtest", "run", "--fee-bps", "20")) == {"fee": 20 * 1e-4}


def test_load_bars_and_from_bars_take_what_says_how_a_file_is_read():
    assert {field.name for field in dataclasses.fields(settings.Source)} <= {
        *inspect.signature(jt.load_bars).parameters,
        *inspect.signature(jt.Market.from_bars).parameters,
    }


def test_a_backtest_takes_several_numbers_of_a_cost_and_labels_each_combination():
    found = given("backtest", "run", "--fee-bps", "0,2.5", "--borrow-rate", "0.02,none", "--slippage-bps", "5")
    combinations = settings.choices(CostRates, found)
    assert list(combinations) == [
        f"fee {fee} bp, borrow rate {rate}" for fee in ("0", "2.5") for rate in ("0.02", "none")
    ]
    last = of(CostRates, combinations["fee 2.5 bp, borrow rate none"])
    assert last == {"fee": pytest.approx(2.5e-4), "borrow_rate": None, "slippage": pytest.approx(5e-4)}
    one = given("backtest", "run", "--fee-bps", "1")
    assert settings.choices(CostRates, one) == {"": one}


def test_patience_and_log_to_are_called_back_by_the_training(monkeypatch):
    words = ["--patience", "3", "--log-to", "tensorboard"]
    stopping, logger = inputs.callbacks(resolved("train", given("train", *words)))
    assert (type(stopping), stopping.patience) == (jt.EarlyStopping, 3)
    assert type(logger) is jt.loggers.TensorBoard
    folds = plan_walk_forward(resolved("walk-forward", given("walk-forward", "--folds", "2", *words))).plans
    assert [[type(each) for each in fold.trainer.callbacks] for fold in folds] == [[type(stopping), type(logger)]] * 2
    assert inputs.callbacks(resolved("train", {})) == []
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(BadInput, match=r"`log_to`: .*wandb"):
        inputs.callbacks(resolved("train", given("train", "--log-to", "wandb")))


@pytest.mark.parametrize(
    ("lengths", "rollout", "episode"),
    [
        ({}, 64, 256),
        ({"decision_every": 2}, 64, 256),
        ({"decision_every": 21}, 12, 252),
        ({"decision_every": 3}, 64, 192),
        ({"decision_every": 1000}, 1, 1000),
        ({"rollout_length": 48}, 48, 240),
        ({"rollout_length": 300}, 300, 300),
        ({"episode_length": 100}, 50, 100),
        ({"decision_every": 21, "episode_length": 210}, 10, 210),
        ({"decision_every": 21, "rollout_length": 6}, 6, 252),
        ({"rollout_length": 48, "episode_length": 256}, 48, 256),  # refused later
    ],
)
def test_lengths_fit_each_other_unless_they_are_given(lengths, rollout, episode):
    found = resolved("train", lengths)
    assert (found["rollout_length"], found["episode_length"]) == (rollout, episode)


# --- words ---


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (
            "--positions -1,0,1 --hidden 64,64 --seed=7 --encoder-depth none --stop-loss 0.03 --leverage 2 --no-adjust",
            {
                "positions": (-1.0, 0.0, 1.0),
                "hidden": (64, 64),
                "seed": 7,
                "encoder_depth": None,
                "stop_loss": 0.03,
                "max_leverage": 2.0,
                "adjust": False,
            },
        ),
        (
            "--positions=-1,0,1 --hidden 8 --seed 6 --stop-loss 0.02,none,0.05 --max-leverage 2 --portfolio --seed 7",
            {
                "positions": (-1.0, 0.0, 1.0),
                "hidden": (8,),
                "seed": 7,
                "stop_loss": (0.02, None, 0.05),
                "max_leverage": 2.0,
                "portfolio": True,
            },
        ),
        (
            "--positions -1.0,0,+1 --hidden [64,64] --seed -1 --log-std-final -1.75 --symbols AAPL,MSFT",
            {
                "positions": (-1.0, 0.0, 1.0),
                "hidden": (64, 64),
                "seed": -1,
                "log_std_final": -1.75,
                "symbols": ("AAPL", "MSFT"),
            },
        ),
        (
            "--positions (-1,0,1) --total-steps 2e6 --fee-bps 2.5 --rebalance on_change --portfolio=false",
            {
                "positions": (-1.0, 0.0, 1.0),
                "total_steps": 2_000_000,
                "fee_bps": 2.5,
                "rebalance": "on_change",
                "portfolio": False,
            },
        ),
        (
            "--positions 1,2 --accounts-per-path 2 --run-dir runs/x --no-random-start --positions 3,4",
            {"positions": (3.0, 4.0), "accounts_per_path": 2, "run_dir": "runs/x", "random_start": False},
        ),
        ("--positions continuous", {"positions": "continuous"}),
        ("--positions weights", {"positions": "weights"}),
    ],
)
def test_words_become_values(words, values):
    found = given("train", *words.split())
    assert found == values
    assert {name: type(value) for name, value in found.items()} == {name: type(x) for name, x in values.items()}


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ("train --sed 3", "--sed; did you mean --seed?"),
        ("backtest run --leverage 3", "--leverage"),  # the policy acts in units of it
        ("train --seed 1.5", "--seed 1.5 must be a whole number"),
        ("train --seed nan", "--seed nan must be a whole number"),
        ("train --positions a,b", "--positions a,b must be numbers such as -1,0,1 or one of continuous, weights"),
        ("train --positions weights,1", "--positions weights,1 must be numbers such as"),
        ("train --hidden 8,x", "--hidden 8,x must be whole numbers such as 64,64"),
        (
            "train --fill next_opn",
            "next_opn must be one of close, next_open, next_close, limit; did you mean next_open?",
        ),
        (
            "train --fill opne",
            "--fill opne must be one of close, next_open, next_close, limit; did you mean",
        ),
        ("train --reward risk_penalised", "did you mean risk_penalized?"),
        ("train --log-to tensorbord", "--log-to tensorbord must be one or more of tensorboard, wandb, mlflow; did you"),
        ("train --stop-loss wide", "--stop-loss wide must be a number or several such as 0.02,0.05"),
        ("train --delisted-after soon", "--delisted-after soon must be a number or never"),
        ("export run --to onx", "--to onx must be one of onnx, stablehlo; did you mean onnx?"),
        ("train --portfolio=maybe", "--portfolio maybe must be true or false"),
        ("train --seed", "--seed has no value; give a whole number"),
        ("train --seed --window 3", "--seed has no value; give a whole number"),
        ("train --config", "--config has no value; give --config FILE"),
        ("train --config --seed 3", "--config has no value; give --config FILE"),
        ("train --fill --seed 3", "--fill has no value; give one of close, next_open"),
        ("train --portfolio yes", "--portfolio takes no value; leave yes out"),
        ("train --symbols ,", "--symbols , must be names such as A,B"),
        ("train --decimal ;", '--decimal \';\' must be one of ".", ","'),
        ("train --positions -1 0 1", "--positions takes a list with commas; write --positions -1,0"),
        ("train prices.csv", "--data prices.csv"),
        ("train --max-leverage 2 --leverage 3", "--leverage and --max-leverage are one setting; leave one of them out"),
        ("train --from a --init-from a", "--from and --init-from are one setting; leave one of them out"),
        ("train --lr 1e-3", "did you mean --learning-rate?"),
        ("train --position -1,0,1", "did you mean --positions?"),
        ("train --fee 1", "did you mean --fee-bps?"),
        ("train --ticker A", "did you mean --symbols?"),
        ("train -data x", "did you mean --data?"),
        ("train --help-al", "did you mean --help-all?"),
        ("train --frobnicate", "see jaxtrader train --help-all"),
        ("train --encoder TCN", "--encoder TCN must be one of mlp, tcn, attention, gru, lru; did you mean tcn?"),
        ("train --rebalance on-change", "did you mean on_change?"),
        ("train --positions Continuous", "did you mean continuous?"),
        ("train --stop-loss 3%", "write 3% as 0.03"),
        ("train --cash-rate 500%", "--cash-rate 500% must be a number, from -50% to below 500%"),
        ("train --fee-bps 60%", "must be a number, from 0% to below 50%"),
        ("train --valid-start 2010-01-01", "did you mean --valid-end?"),
        ("train --funding 1", "no flag --funding; see jaxtrader train --help-all"),
        ("train --total-steps 2M", "--total-steps 2M must be a whole number; write 2e6"),
        ("data x --fee-bps 1", "it is of jaxtrader train"),
        ("data --data x.csv", "give the file alone, as in jaxtrader data FILE"),
        ("evaluate runs", "did you mean backtest?"),
        ("help", "did you mean --help?"),
        ("--verison", "did you mean --version?"),
        ("--lr 3", "as in jaxtrader train --lr"),
        ("backtest", "jaxtrader backtest needs RUN: the folder of a run of"),
        ("trian", "did you mean train?"),
        ("train a.csv", "give a file as --data a.csv"),
        ("data a.csv b.csv", "give one file, or a folder or zip archive of several"),
        ("watch runs more", "does not expect more; see jaxtrader watch --help"),
        ("frob", "the commands are train,"),
    ],
)
def test_a_wrong_word_is_one_sentence_with_the_nearest_right_one(argv, says):
    assert says in refused(*argv.split())


def test_python_m_is_the_command():
    done = subprocess.run([sys.executable, "-m", "jaxtrader", "frob"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("jaxtrader: error: ")
    assert len(done.stderr.splitlines()) == 1


# --- files ---


def test_every_flag_can_stand_in_a_file_and_a_typed_one_wins(tmp_path):
    text = """
    fee_bps = 2.5
    train-end = 2007-12-31
    adjust = false
    total_steps = 2e6
    [environment]
    positions = [-1, 0, 1]
    [learning]
    hidden = "64,64"
    seed = 3
    """
    found = given("train", "--config", path := toml(tmp_path, text), "--seed", "4", "--adjust")
    assert found == {
        "config": path,
        "fee_bps": 2.5,
        "train_end": "2007-12-31",
        "adjust": True,
        "total_steps": 2_000_000,
        "positions": (-1.0, 0.0, 1.0),
        "hidden": (64, 64),
        "seed": 4,
    }
    assert "total_steps" not in given("train", "--config", path, "--num-episodes", "5")
    assert given("check", "--config", toml(tmp_path, "only = ['plausible']")) == {
        "config": path,
        "only": ("plausible",),
    }
    assert given("backtest", "run", "--config", toml(tmp_path, "stop_loss = 0.1"))["stop_loss"] == 0.1
    several = given("backtest", "run", "--config", toml(tmp_path, "fee_bps = [0, 1]"))
    assert several == given("backtest", "run", "--config", several["config"], "--fee-bps", "0,1")


@pytest.mark.parametrize(
    ("command", "line", "value"),
    [
        ("train", "window = 2.0", 2),
        ("train", "gamma = 1", 1.0),
        ("train", "hidden = 8", (8,)),
        ("train", "hidden = '8'", (8,)),
        ("train", "stop_loss = [0.02, 'none', 0.05]", (0.02, None, 0.05)),
        ("train", "stop_loss = '0.02,none'", (0.02, None)),
        ("train", "risk_aversion = 'none'", None),
        ("train", "delisted_after = 'never'", "never"),
        ("train", "train_end = 2007-12-31T10:00:00", "2007-12-31 10:00:00"),
        ("walk-forward", "train = 500", "500"),
    ],
)
def test_a_file_may_say_a_value_in_each_type_that_its_setting_takes(command, line, value, tmp_path):
    found = given(command, "--config", toml(tmp_path, line))[line.split()[0]]
    assert (found, type(found)) == (value, type(value))


def test_code_that_a_file_of_settings_has_run_is_named(tmp_path, capsys):
    path = toml(tmp_path, "network = 'mine.py:Small'")
    assert given("train", "--config", path)["network"] == "mine.py:Small"
    assert capsys.readouterr().err == f"{path} names the network mine.py:Small: running its Python file ...\n"
    assert given("train", "--config", path, "--network", "own.py:Small")["network"] == "own.py:Small"
    assert capsys.readouterr().err == ""


def test_the_checks_to_run_are_those_that_there_are():
    assert get_args(Check) == jt.checks.NAMES


def test_the_rewards_to_choose_from_are_those_of_the_api():
    functions = {name for name in vars(jt.rewards) if name.startswith(get_args(Reward))}
    assert set(get_args(Reward)) == functions


def test_the_file_in_the_readme_is_one(tmp_path):
    text = (Path(flags.__file__).parent / "README.md").read_text()
    block = text.split("```toml\n")[1].split("```")[0]
    found = given("train", "--config", toml(tmp_path, block))
    assert (found["data"], found["stop_loss"]) == ("prices.csv", 0.03)


def test_all_settings_of_train_are_read_again_from_the_file_that_a_run_writes(tmp_path):
    """With a value of each kind that is no default."""
    words = "--data x.csv --positions weights --symbols A,B --stop-loss 0.1 --leverage 0.5 --no-adjust --fee-bps 0.1"
    values = resolved("train", given("train", *words.split(), "--quiet", "--seed", "7", "--run-dir", "x"))
    flags.config_file.write(tmp_path, "train", values)
    again = resolved("train", given("train", "--config", str(tmp_path)))
    of_one_run = ("config", "quiet", "run_dir")
    assert {k: v for k, v in again.items() if k not in of_one_run} == {
        k: v for k, v in values.items() if k not in of_one_run
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("widow = 3", ("widow", "did you mean window?")),
        ("[money]\nfee_bp = 3", ("fee_bp", "did you mean fee_bps?")),
        ("seed = 'seven'", ('seed = "seven" must be a whole number',)),
        ("seed = [1, 2]", ("seed = [1, 2] must be a whole number",)),
        ("features = []", ('features = [] must be names such as ["A", "B"]',)),
        ("seed = true", ("seed = true must be a whole number",)),
        ("portfolio = 3", ("portfolio", "3", "true or false")),
        ("must_beat_holding = 'yes'", ("must_beat_holding", '"yes"', "true or false")),
        ("must_beat_holding = 1", ("must_beat_holding", "1", "true or false")),
        ("window = '32'", ("window", '"32"', "write 32")),
        ("[learning]\ntotal-steps = '2e6'", ("total-steps", '"2e6"', "write 2000000")),
        ("stop_loss = '0.03'", ("stop_loss", '"0.03"', "write 0.03")),
        ("stop_loss = 'wide'", ('stop_loss = "wide" must be a number or several such as [0.02, 0.05]',)),
        ("must_beat_holding = [true]", ("must_beat_holding = [true] must be true or false",)),
        ("hidden = ['8', 16]", ("hidden", '"8"', "write 8")),
        ("leverage = '2'", ("leverage", '"2"', "write 2")),
        ("tz = 3", ("tz", "text", 'write "3"')),
        ("symbols = [7203]", ('symbols = [7203] must be names such as ["A", "B"]; write "7203"',)),
        ("run_dir = true", ("run_dir = true must be text",)),
        ("data = 2020-01-01", ("data", "text", 'write "2020-01-01"')),
        ("[market]\nfeatures = [['gap']]", ('features = [["gap"]] must be names',)),
        ("commission = 3", ("commission", "did you mean fee_bps?")),
        ("[money]\nmargin = 3", ("margin", "did you mean max_leverage?")),
        ("[monney]\nfee_bps = 3", ("[monney]", "did you mean money?")),
        ("[monney]", ("[monney]", "did you mean money?")),
        ("[costs]\nfee_bps = 3", ("[costs]", "market, money, environment")),
        ("[fee-bps]\nlow = 1", ("fee-bps is a table", "a value or a list")),
        ("leverage = 3\nmax_leverage = 2", ("max_leverage stands twice", "leverage")),
        ("from = 'a'\n[run]\ninit-from = 'b'", ("init-from stands twice", "from")),
        (
            "fill = 'next_opn'",
            ('fill = "next_opn" must be one of close, next_open,', "; did you mean next_open?"),
        ),
        (
            "positions = ['a', 1]",
            ('positions = ["a", 1] must be numbers such as [-1, 0, 1] or one of',),
        ),
        ("no_adjust = true", ("no_adjust", "adjust = false")),
        ("window = 2.5", ("window", "2.5", "whole number")),
        ("window = {bars = 3}", ("window is a table", "a value or a list")),
        ("[money]\nfee_bps = {low = 1}", ("fee_bps is a table", "a value or a list")),
        ("[[money]]\nfee_bps = 1", ("[[money]]", "write [money]")),
        ("fee-bps = 1\n[money]\nfee_bps = 2", ("fee_bps stands twice",)),
        ("[sweep]\ngamma = [0.9, 0.99]", ("[sweep]", "jaxtrader sweep")),
        ("config = 'other.toml'", ("config", "type --config")),
        ("resume = 'runs/x'", ("resume", "type --resume")),
        ("fee_bps = '5%'", ("fee_bps", "write 5% as 500")),
        ("seed = = 3", ("is not TOML", "line 1")),
    ],
)
def test_a_wrong_file_is_one_sentence_with_the_file_the_key_and_the_nearest_right_one(text, says, tmp_path, capsys):
    path = toml(tmp_path, text)
    assert main(["train", "--config", path]) == 2
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert path in err
    for word in says:
        assert word in err
    assert [file.name for file in tmp_path.iterdir()] == ["run.toml"]


def test_a_stop_loss_of_one_position_alone_is_written_and_read_again(tmp_path):
    typed = given("train", "--positions", "0,1", "--stop-loss", "0.02,none")
    assert typed["stop_loss"] == (0.02, None)
    flags.config_file.write(tmp_path, "train", resolved("train", typed))
    assert given("train", "--config", str(tmp_path))["stop_loss"] == (0.02, None)


@pytest.mark.parametrize("command", [("train",), ("walk-forward",), ("check",), ("backtest", "run")])
def test_a_file_that_is_wrong_or_not_there_is_refused_by_every_command_that_takes_one(command, tmp_path):
    assert "no such file" in refused(*command, "--config", str(tmp_path / "none.toml"))
    assert "did you mean slippage_bps?" in refused(*command, "--config", toml(tmp_path, "slipage_bps = 1"))
    assert "'high'" in refused(*command, "--config", toml(tmp_path, "fee_bps = 'high'")).replace('"', "'")


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path):
    assert "type it after jaxtrader backtest" in refused("backtest", "r", "--config", toml(tmp_path, "run = 'r'"))
    assert "config.toml cannot be read" in refused("train", "--config", str(tmp_path))  # a run folder without one
    (tmp_path / "run.toml").write_bytes(b"\xff\xfe")
    assert "is not TOML" in refused("train", "--config", str(tmp_path / "run.toml"))


def test_a_process_that_has_pydantic_loaded_reads_the_same_words():
    import pydantic  # noqa: F401  wandb and mlflow load it, and cyclopts then checks with it what it finds

    assert given("backtest", "run", "--fee-bps", "0,1")["fee_bps"] == (0.0, 1.0)
    assert given("train", "--leverage", "2")["max_leverage"] == 2.0
    assert "--fill" in refused("train", "--fill", "noon")
