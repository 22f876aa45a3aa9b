"""The Trainer against test doubles of both protocols, on paths, and on gymnax's CartPole."""

import dataclasses
import json
import math
import os
import re
import signal
import threading
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from trainers import CountEnv, FakeAgent, path_trainer

from jaxtrader import compilation, files
from jaxtrader.agents.policy_loading import load_policy
from jaxtrader.agents.ppo import PPOAgent
from jaxtrader.agents.protocol import Agent, MarketAgent
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.ledger.costs import Costs
from jaxtrader.training import dispatch, update, validation
from jaxtrader.training.records import SpeedMeter
from jaxtrader.training.run_config import describe
from jaxtrader.training.train_result import TrainingDiverged
from jaxtrader.training.train_settings import TrainSettings
from jaxtrader.training.trainer import Trainer


def count_trainer(tmp_path, agent=None, **settings):
    settings = {"num_envs": 4, "rollout_length": 10, "progress": False, "run_dir": tmp_path / "run", **settings}
    return Trainer(CountEnv(), FakeAgent() if agent is None else agent, **settings)


def test_fake_env_and_fake_agent_run_for_the_steps_asked(tmp_path):
    result = count_trainer(tmp_path, total_steps=230, updates_per_chunk=2, eval_every=3).train()
    assert (result.updates, result.steps) == (6, 240)  # 40 steps an update, rounded up
    assert result.episodes == 240 // 5
    assert float(result.state["updates"]) == 6
    assert [r["updates"] for r in result.history] == [2, 3, 5, 6]  # chunks of 2, cut at every third update
    assert all(r["episode_return"] == 5 for r in result.history)  # five rewards of 1
    assert all(r["reward_per_bar"] == 1 for r in result.history)


def test_files_of_a_run(tmp_path):
    result = count_trainer(tmp_path, total_steps=80, about={"note": "mine"}).train()
    lines = [json.loads(line) for line in (result.run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [line["updates"] for line in lines] == [r["updates"] for r in result.history]
    config = json.loads((result.run_dir / "config.json").read_text())
    assert config["training"]["total_steps"] == 80
    assert config["note"] == "mine"
    for name in ("policy.pkl", "last.pkl"):
        stored = files.load(result.run_dir / name, "fake")
        assert (stored["updates"], stored["about"]["note"]) == (2, "mine")
    saved = files.load(result.run_dir / "checkpoint.pkl", "checkpoint")
    assert saved["updates"] == 2
    assert saved["metrics_bytes"] == (result.run_dir / "metrics.jsonl").stat().st_size
    assert saved["jax"] == jax.__version__


def test_episodes_stop_at_the_first_boundary_at_or_past_the_number(tmp_path):
    # 4 environments finish 8 episodes an update of 10 steps: 20 are passed in the third.
    result = count_trainer(tmp_path, num_episodes=20, updates_per_chunk=4).train()
    assert (result.updates, result.episodes) == (3, 24)
    exact = count_trainer(tmp_path / "exact", num_episodes=24, updates_per_chunk=1).train()
    assert (exact.updates, exact.episodes) == (3, 24)


@pytest.mark.slow
def test_plain_python_agent_under_disable_jit(tmp_path):
    class Plain(Agent):
        """Not a pytree, not jittable: counts its calls on the host."""

        def __init__(self):
            self.calls = {"init": 0, "select_action": 0, "learn": 0, "save_model": 0}

        def init(self, key, env, params):
            self.calls["init"] += 1
            return {"w": jnp.zeros(())}

        def select_action(self, state, obs, key, deterministic=False):
            self.calls["select_action"] += 1
            return jnp.zeros(obs.shape[:1], jnp.int32), {}

        def learn(self, state, rollout, params, key):
            self.calls["learn"] += 1
            return state, {}

        def save_model(self, path, state, about):
            self.calls["save_model"] += 1

    agent = Plain()
    with jax.disable_jit():
        result = count_trainer(tmp_path, agent, total_steps=80, updates_per_chunk=1).train()
    assert result.updates == 2
    assert agent.calls["init"] == 1
    assert agent.calls["learn"] >= 2
    assert agent.calls["select_action"] >= 2 * 11  # ten steps and the last value
    assert agent.calls["save_model"] == 2


def test_nan_parameters_end_training_and_the_state_before_them_is_saved(tmp_path):
    trainer = count_trainer(tmp_path, FakeAgent(nan_at=3), total_steps=40 * 100, updates_per_chunk=2)
    with pytest.raises(TrainingDiverged, match=r"update 4 was rejected: .*parameters.*learning_rate"):
        trainer.train()
    last = files.load(tmp_path / "run" / "last.pkl", "fake")
    assert last["updates"] == 3
    saved = files.load(tmp_path / "run" / "checkpoint.pkl", "checkpoint")
    np.testing.assert_array_equal(saved["train_state"]["agent_state"]["weight"], [1, 1])
    assert bool(saved["train_state"]["healthy"])  # or a run that goes on from it would stand still
    assert int(saved["train_state"]["updates"]) == 3


@struct.dataclass
class Fool(FakeAgent, MarketAgent):
    """On paths, always with the same action, and with a loss that is its reward."""

    action: float = 0.0

    def encode(self, state, chunk):
        return chunk[..., 3:, 0, :]

    def act(self, state, context, account, key, deterministic=False):
        return jnp.broadcast_to(jnp.int32(self.action), account.shape[:-2]), {}

    def learn(self, state, rollout, params, key):
        return state, {"loss": rollout.reward.mean()}


def test_invalid_actions_stop_training(tmp_path, env):
    with pytest.raises(TrainingDiverged, match="not finite or not valid in action"):
        path_trainer(env, Fool(action=100.0), tmp_path / "run", total_steps=1000).train()


def test_ctrl_c_saves_and_ends_well(tmp_path):
    began = threading.Event()

    class Watched(CountEnv):
        def reset(self, key, params):
            began.set()
            return super().reset(key, params)

    def interrupt():
        began.wait()
        threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGINT)).start()

    threading.Thread(target=interrupt).start()
    trainer = Trainer(
        Watched(),
        FakeAgent(),
        num_envs=4,
        rollout_length=10,
        total_steps=10**10,
        progress=False,
        run_dir=tmp_path / "run",
    )
    result = trainer.train()
    assert result.interrupted
    assert 0 < result.steps < 10**10
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    for name in ("policy.pkl", "last.pkl", "checkpoint.pkl", "metrics.jsonl", "config.json"):
        assert (result.run_dir / name).exists()
    assert int(files.load(result.run_dir / "checkpoint.pkl", "checkpoint")["updates"]) == result.updates


def test_a_speed_is_measured_over_half_a_second_at_least():
    meter = SpeedMeter()
    assert math.isnan(meter.speed(100, 5.0)), "nothing to measure from"
    meter.add(100, 5.0)
    assert math.isnan(meter.speed(1_000_100, 5.01)), "two chunks fetched together say nothing"
    assert meter.speed(1100, 7.0) == 500


@pytest.mark.slow
def test_paths_same_seed_same_bits_whatever_the_chunk(tmp_path, env, agent):
    steps = 8 * env.episode_length // 2 * 6
    one = path_trainer(env, agent, tmp_path / "a", total_steps=steps, updates_per_chunk=1).train()
    size = update.run_chunk._cache_size()
    many = path_trainer(env, agent, tmp_path / "b", total_steps=steps, updates_per_chunk=4, eval_every=5).train()
    assert update.run_chunk._cache_size() == size  # any chunk length: one compilation
    chex.assert_trees_all_equal(one.state, many.state)
    other = path_trainer(env, agent, tmp_path / "c", total_steps=steps, seed=4).train()
    first = jax.tree.leaves(one.state.params)[0]
    assert not np.array_equal(first, jax.tree.leaves(other.state.params)[0])


@pytest.mark.slow
def test_other_rates_train_by_the_same_program(tmp_path, env, agent):
    steps = 8 * env.episode_length // 2 * 2
    cheap = path_trainer(env, agent, tmp_path / "cheap", total_steps=steps).train()
    size = update.run_chunk._cache_size(), update.begin_rollouts._cache_size()
    dear = dataclasses.replace(env, costs=Costs(0.003, 0.002))
    other = path_trainer(dear, agent, tmp_path / "dear", total_steps=steps).train()
    assert (update.run_chunk._cache_size(), update.begin_rollouts._cache_size()) == size
    # The first rollout is the same policy's: it pays some ten times as much for the same orders.
    assert other.history[0]["cost_per_bar"] > 5 * cheap.history[0]["cost_per_bar"]


def test_nothing_compiles_after_the_first_validation(tmp_path, env, agent, market, monkeypatch, caplog):
    """Counted over all programs, those of the log and of checkpoints too: chunks of other lengths, and validations."""
    compiled = []

    def counted(*args, **kwargs):
        compiled.append(sum("Compiling" in record.getMessage() for record in caplog.records))
        return update.run_chunk(*args, **kwargs)

    monkeypatch.setattr(dispatch, "run_chunk", counted)
    steps = 8 * env.episode_length // 2 * 14
    trainer = path_trainer(
        env, agent, tmp_path / "run", valid=market, total_steps=steps, updates_per_chunk=2, eval_every=3
    )
    with jax.log_compiles():
        jax.jit(lambda x: x + 1)(jnp.zeros(3))
        trainer.train()
    assert compiled[0] > 0, "compilations must be seen to be counted"
    assert len(compiled) == 9  # chunks of 2 and 1 in turn, and 3 of them until the first validation is fetched
    assert compiled[3:] == [compiled[3]] * 6
    assert sum("Compiling" in record.getMessage() for record in caplog.records) == compiled[3]


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_a_chunk_takes_over_the_buffers_of_the_one_before_and_waits_for_nothing(
    tmp_path, env, agent, monkeypatch, devices
):
    """The train state is donated, and to dispatch a chunk moves nothing between host and device."""
    train_states = []

    def kept(train_state, *args, **kwargs):
        train_states.append(train_state)
        with jax.transfer_guard("disallow"):
            return update.run_chunk(train_state, *args, **kwargs)

    monkeypatch.setattr(dispatch, "run_chunk", kept)
    settings = {"total_steps": 8 * env.episode_length // 2 * 3, "updates_per_chunk": 1, "devices": devices}
    path_trainer(env, agent, tmp_path / "run", **settings).train()
    assert len(train_states) == 3
    for train_state in train_states:
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(train_state))


def test_programs_are_kept_by_default(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(compilation, "enable_cache", lambda: asked.append(True))
    count_trainer(tmp_path, total_steps=40).train()
    assert asked == [True]


def test_a_policy_file_says_what_its_decisions_saw(tmp_path, env, agent):
    seen = dataclasses.replace(env, market=dataclasses.replace(env.market, delisted_after=9.0))
    trainer = path_trainer(seen, agent, tmp_path / "run", total_steps=100)
    wanted = {"names": list(env.market.feature_names), "lookback": env.market.lookback, "delisted_after": 9.0}
    assert describe(trainer, {})["features"] == wanted


def test_validation_keeps_the_best_policy_ties_to_the_earlier(tmp_path, env, agent, monkeypatch, market):
    scores = iter([1.0, 3.0, 3.0, 2.0])
    monkeypatch.setattr(validation, "mean_reward", lambda *a, **k: jnp.asarray(next(scores)))
    trainer = path_trainer(
        env, agent, tmp_path / "run", valid=market, total_steps=8 * env.episode_length // 2 * 4, eval_every=1
    )
    result = trainer.train()
    assert [r["valid_reward_per_bar"] for r in result.history] == [1, 3, 3, 2]
    assert [r["valid_best"] for r in result.history] == [1, 3, 3, 3]
    assert result.best["updates"] == 2
    assert load_policy(result.policy_path).about["updates"] == 2
    assert load_policy(result.run_dir / "last.pkl").about["updates"] == 4


def test_bars_after_the_training_segments_do_not_touch_training(tmp_path, env, market, agent):
    """The test years are another world: every price and feature in them changed, the trained bits are the same."""
    train, _ = market.split(0.6, 0.4)
    cut = train.segments[:, 2]
    rows = np.zeros(len(market.times), bool)
    for (start, _, end), stop in zip(market.segments, cut, strict=True):
        rows[start:end] = np.arange(start, end) >= stop
    changed = {}
    for name in ("open", "high", "low", "close", "volatility", "features"):
        column = getattr(train, name).copy()
        column[rows] = np.nan_to_num(column[rows]) * 3 + 1
        changed[name] = column
    states = []
    for i, one in enumerate((train, dataclasses.replace(train, **changed))):
        trainer = path_trainer(env.with_market(one), agent, tmp_path / str(i), total_steps=8 * 8 * 4)
        states.append(trainer.train().state)
    chex.assert_trees_all_equal(*states)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_envs": 0, "total_steps": 1}, "num_envs=0` must be a whole number, at least 1"),
        ({}, "one of `num_episodes` and `total_steps`"),
        ({"total_steps": 1, "num_episodes": 1}, "one of `num_episodes` and `total_steps`"),
        ({"total_steps": 0}, "total_steps=0` must be a whole number, at least 1"),
        ({"total_steps": 1, "seed": -1}, "seed=-1` must be a whole number, from 0 to 4,294,967,295"),
        ({"total_steps": 1, "seed": 2**32}, "seed=4294967296` must be a whole number, from 0 to 4,294,967,295"),
        ({"total_steps": 1, "seed": 2**32 - 2, "seeds": 3}, "seed=4294967294` must be a whole number, from 0 to"),
        ({"total_steps": 1, "seeds": 2**40}, r"seeds=1099511627776` must be a whole number, from 1 to 4,294,967,296"),
        ({"total_steps": 1, "run_dir": 5}, "run_dir=5` must be the path of a folder"),
        ({"total_steps": 1, "about": "x"}, "about='x'` must be a dict"),
        ({"total_steps": 1, "about": {"x": [object()]}}, r"`about` must be plain data: tree\['x'\]\[0\] is a object"),
        ({"total_steps": 1, "env_params": 5}, "Trainer needs an EnvParams, not an int"),
        ({"total_steps": 1, "init_from": 5}, "init_from=5` must be a policy, or the path"),
        ({"total_steps": 1, "valid": 5}, "valid=5` must be a Market, or the Optimum of a synthetic market"),
        ({"total_steps": 1, "must_beat_holding": "no"}, "must_beat_holding='no'` must be True or False"),
        ({"total_steps": 1, "progress": 0}, "progress=0` must be True or False"),
        ({"num_episodes": 2**40}, "give `total_steps` instead"),
        ({"total_steps": 10**13}, "more than 2147483647 updates"),
        (
            {"total_steps": 1, "num_envs": 6, "accounts_per_path": 4},
            "accounts_per_path=4` does not divide `num_envs=6`",
        ),
        ({"total_steps": 1, "num_envs": 6, "accounts_per_path": 2}, "num_minibatches=2` does not divide the 3 paths"),
        ({"total_steps": 1, "rollout_length": 7}, "rollout_length=7` does not divide `episode_length"),
    ],
)
def test_settings_that_do_not_fit_say_the_way_out(env, agent, settings, message):
    with pytest.raises(ValueError, match=message):
        Trainer(env, agent, **{"rollout_length": env.episode_length, "num_envs": 8, **settings})


def test_what_the_checks_of_types_accept(env, agent, raw_params, tmp_path):
    settings = {
        "env_params": raw_params,
        "about": {"note": [1, (2.0, None)]},
        "run_dir": tmp_path / "run",
        "valid": env.market,
    }
    size = {"rollout_length": env.episode_length, "num_envs": 8, "total_steps": 64}
    trainer = Trainer(env, agent, seed=2**32 - 3, seeds=3, **settings, **size)
    assert trainer.env_params is raw_params
    with pytest.raises(ValueError, match="needs an Agent, not the class PPOAgent"):
        Trainer(env, type(agent), **size)


@pytest.mark.parametrize(
    "name",
    [field.name for field in dataclasses.fields(TrainSettings) if field.type.startswith("int")],
)
def test_a_setting_that_counts_is_a_whole_number(env, agent, name):
    settings = {"rollout_length": env.episode_length, "num_envs": 8, "total_steps": 64}
    if name == "num_episodes":
        del settings["total_steps"]
    stops = name in ("total_steps", "num_episodes")
    for wrong in (1.5, "16", math.inf if stops else 16.0, True, math.nan):
        with pytest.raises(ValueError, match=re.escape(f"{name}={wrong!r}` must be a whole number")):
            Trainer(env, agent, **{**settings, name: wrong})
    right = {"num_envs": 8, "rollout_length": 16, "total_steps": 64}.get(name, 1)
    found = getattr(Trainer(env, agent, **{**settings, name: np.int64(right)}), name)
    assert (found, type(found)) == (right, int), "config.json and checkpoints hold numbers of Python"
    if stops:
        assert getattr(Trainer(env, agent, **{**settings, name: 1e6}), name) == 1_000_000


class Nameless(CountEnv):
    name = property()  # of which a look raises AttributeError


def test_what_is_no_environment_is_refused_and_says_what_it_lacks(env, agent):
    for wrong, lacking in ((env.market, "name"), (Nameless(), "name"), (SimpleNamespace(name="x"), "reset")):
        with pytest.raises(ValueError, match=rf"a {type(wrong).__name__} is no environment: it has no {lacking}; give"):
            Trainer(wrong, agent, total_steps=1)
    assert Trainer(CountEnv(), FakeAgent(), num_envs=4, rollout_length=10, total_steps=1).env == CountEnv()


@pytest.mark.parametrize(
    ("window", "num_envs", "given", "accounts"),
    [(4, 64, None, 2), (1, 64, None, 1), (4, 8, None, 1), (4, 64, 1, 1), (4, 64, 4, 4)],
)
def test_two_accounts_share_a_path_by_default_where_a_window_is_above_1(env, agent, window, num_envs, given, accounts):
    """And where the paths are enough for eight devices. The agent has two minibatches."""
    trainer = Trainer(
        dataclasses.replace(env, window=window),
        agent,
        num_envs=num_envs,
        accounts_per_path=given,
        rollout_length=env.episode_length,
        total_steps=1,
    )
    assert (trainer.accounts_per_path, trainer.num_paths) == (accounts, num_envs // accounts)
    assert trainer.rollouts.accounts == accounts


def test_too_few_bars_are_refused(market, agent):
    with pytest.raises(ValueError, match="too few"):
        Trainer(TradingEnv(market, episode_length=10**6), agent, num_envs=8, rollout_length=10**6, total_steps=1)


def test_too_few_bars_are_refused_off_paths_too(make_market):
    with pytest.raises(ValueError, match="too few"):
        Trainer(TradingEnv(make_market((30,)), window=32), FakeAgent(), num_envs=4, rollout_length=10, total_steps=1)


def test_validation_needs_the_same_features_and_enough_bars(env, agent, market):
    turned = dataclasses.replace(market, feature_names=market.feature_names[::-1])
    short = dataclasses.replace(market, segments=np.array([[0, 0, 150], [150, 150, 153]]))
    for valid, message in ((turned, "different features"), (short, "S1: fewer bars than a decision")):
        with pytest.raises(ValueError, match=message):
            path_trainer(env, agent, None, valid=valid, total_steps=1)


def test_nan_prices_are_named_as_the_cause(tmp_path, env):
    broken = dataclasses.replace(env.market, close=np.where(np.arange(240)[:, None] % 7 == 0, np.nan, env.market.close))
    with pytest.raises(TrainingDiverged, match=r"not valid in reward, loss.*untrained.*Look at the prices"):
        path_trainer(env.with_market(broken), Fool(), tmp_path / "run", total_steps=1000).train()


@pytest.mark.slow
def test_a_reward_of_the_users_own_is_named_as_the_cause(tmp_path, env):
    def ratio(before, after):
        return (after - before) / 0.0 * 0.0

    own = dataclasses.replace(env, reward=ratio)
    with pytest.raises(
        TrainingDiverged, match=r"reward \(your own, .*ratio\), loss.*Look at where that reward divides"
    ):
        path_trainer(own, Fool(), tmp_path / "run", total_steps=1000).train()


def test_a_run_folder_in_use_is_refused(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("dear")
    with pytest.raises(FileExistsError, match="not empty"):
        count_trainer(tmp_path, total_steps=1).train()
    assert (tmp_path / "run" / "thesis.txt").read_text() == "dear"


def test_run_folders_are_numbered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for expected in ("count-0001", "count-0002"):
        assert count_trainer(tmp_path, total_steps=1, run_dir=None).train().run_dir.name == expected


@pytest.mark.usefixtures("optimized")
@pytest.mark.slow
def test_cartpole_reaches_475(tmp_path):
    import gymnax  # 4 s: only here

    env, params = gymnax.make("CartPole-v1")
    trainer = Trainer(
        env,
        PPOAgent(),
        env_params=params,
        num_envs=16,
        rollout_length=128,
        total_steps=250_000,
        updates_per_chunk=32,
        progress=False,
        run_dir=tmp_path / "run",
    )
    result = trainer.train()
    assert result.steps <= 250_000 + trainer.steps_per_update

    def episode(key):
        def step(carry, step_key):
            obs, state, alive, total = carry
            action, _ = result.agent.select_action(result.state, obs[None], step_key, deterministic=True)
            obs, state, reward, terminated, truncated, _ = env.step(step_key, state, action[0], params)
            return (obs, state, alive & ~terminated & ~truncated, total + reward * alive), None

        obs, state = env.reset(key, params)
        (_, _, _, total), _ = jax.lax.scan(step, (obs, state, jnp.ones((), bool), 0.0), jax.random.split(key, 500))
        return total

    returns = jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(1), 100))
    assert float(returns.mean()) >= 475


def test_a_run_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError, match="file is a file: give another run folder"):
        count_trainer(tmp_path, total_steps=1, run_dir=tmp_path / "file").train()
    with pytest.raises(OSError, match=r"run folder .* cannot be made \(Not a directory\); give another"):
        count_trainer(tmp_path, total_steps=1, run_dir=tmp_path / "file" / "below").train()
