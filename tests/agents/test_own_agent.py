"""An agent of the user's own: it trains, is saved and loaded without any code of the file, and is backtested."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from probes import BY_BOTH, TRUNCATED, Tabular

import jaxtrader as jt
from jaxtrader import files
from jaxtrader.agents.policy import Policy
from jaxtrader.agents.policy_loading import save_policy
from jaxtrader.agents.protocol import MarketAgent, Rollout
from jaxtrader.envs.observation import Observation
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.examples.dqn import DQN
from jaxtrader.files import FileError
from jaxtrader.training.rollout import EnvRollouts, MarketRollouts
from jaxtrader.training.run_config import describe, plain_agent

AGENT = DQN(hidden=(8,), epochs=1, batches=2)


@pytest.fixture(scope="module")
def seeds(env: TradingEnv, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Two seeds of a DQN after four updates on market bars, the best of them by validation."""
    settings = {"num_envs": 8, "rollout_length": 8, "total_steps": 256, "progress": False, "seeds": 2}
    run = tmp_path_factory.mktemp("own") / "run"
    return jt.Trainer(env, AGENT, valid=env.market, run_dir=run, eval_every=2, **settings).train()


@pytest.fixture(scope="module")
def trained(seeds: Any) -> Any:
    """The training of the first seed."""
    return seeds.members[0]


def test_a_saved_agent_decides_and_earns_as_the_trained_one(trained: Any, env: TradingEnv) -> None:
    assert {"loss", "q", "valid_reward_per_bar"} <= trained.history[-1].keys()
    policy = jt.load_policy(trained.run_dir / "last.pkl", agent=AGENT)
    assert "DQN" not in repr(policy)
    result = jt.backtest(policy, env.market)
    again = jt.backtest(trained.agent, env.market, state=trained.state, env=trained.env)
    for symbol, one in result.by_symbol.items():
        np.testing.assert_array_equal(one.equity, again.by_symbol[symbol].equity)
        seen = one.seen(20)
        assert policy.act(seen.window[:, 0], seen.account[0]) == seen.target[0]
    told = policy.explain(result.by_symbol["S0"], 20)
    assert told.members["seed 0"].target == told.target
    assert told.probabilities is None
    assert "value" in str(told), "a DQN tells none, which is a dash"
    scaled = trained.state.normalizer(told.seen.window)
    np.testing.assert_allclose(told.normalized, scaled, rtol=1e-6)
    dearer = jt.backtest(trained.agent, env.market, state=trained.state, env=trained.env, costs=jt.Costs(fee=0.05))
    assert dearer.equity[-1] < result.equity[-1]


def test_a_function_of_its_network_earns_what_it_earns(trained: Any, env: TradingEnv) -> None:
    """The oracle is the loop in Python over the network's own values."""
    state = trained.state
    values = jax.jit(lambda flat: state.network.of(state.params, flat))

    def decide(seen: Any) -> float:
        scaled = seen.replace(window=np.asarray(state.normalizer(seen.window)))
        return env.positions[int(values(jnp.asarray(scaled)[None])[0].argmax())]

    wanted = jt.backtest(decide, env.market, env=env)
    result = jt.backtest(trained.agent, env.market, state=state, env=env)
    for symbol, one in result.by_symbol.items():
        np.testing.assert_array_equal(one.targets, wanted.by_symbol[symbol].targets)
        np.testing.assert_allclose(one.equity, wanted.by_symbol[symbol].equity, rtol=1e-12)


def test_an_ordinary_environment_is_given_again(tmp_path: Path) -> None:
    env, path = Tabular(), tmp_path / "policy.pkl"
    about = describe(jt.Trainer(env, AGENT, env_params=BY_BOTH, num_envs=8, rollout_length=8, total_steps=64), {})
    state = jax.jit(lambda key: AGENT.acting_part(AGENT.init(key, env, BY_BOTH)))(jax.random.key(0))
    save_policy(path, Policy(AGENT, state, about))
    policy = jt.load_policy(path, agent=AGENT, env=env, env_params=BY_BOTH)
    assert policy.act([1.0]) in (0, 1)
    assert repr(policy) == "Policy of DQN"
    with pytest.raises(ValueError, match="a policy of DQN for an environment of your own; give it as `env`"):
        jt.load_policy(path, agent=AGENT)


@pytest.mark.slow
def test_two_seeds_trade_the_mean_of_their_targets(seeds: Any, env: TradingEnv, tmp_path: Path) -> None:
    policy = jt.load_policy(seeds.run_dir, agent=AGENT)
    assert policy.about["seeds"] == [0, 1]
    members = policy.members
    windows = [env.market.features[t : t + 4, 0] for t in range(20, 60)]
    taken = [policy.act(window) for window in windows]
    np.testing.assert_allclose(taken, [np.mean([one.act(window) for one in members]) for window in windows])
    assert len(set(taken)) > 1, "a constant policy would prove nothing"
    assert policy.positions == "continuous"
    together = jt.backtest(policy, env.market)
    np.testing.assert_array_equal(jt.backtest(seeds.policy, env.market).targets, together.targets)
    own = together.by_symbol["S0"]
    alone = [jt.backtest(one, env.market).by_symbol["S0"].targets[0, 0] for one in members]
    assert own.targets[0, 0] == pytest.approx(np.mean(alone))
    told = policy.explain(own, 20)
    assert np.mean([one.target for one in told.members.values()]) == pytest.approx(told.target[0])
    about = policy.export(tmp_path / "policy.stablehlo", "stablehlo")
    assert about.outputs == {"target": ["batch"]}
    exported = jax.export.deserialize(bytearray((tmp_path / "policy.stablehlo").read_bytes()))
    accounts = np.tile(np.asarray(policy.untraded(), np.float32), (len(windows), 1))
    (targets,) = exported.call(np.asarray(windows, np.float32), accounts)
    np.testing.assert_allclose(targets, taken)
    with pytest.raises(ValueError, match="a policy of DQN, an agent of your own"):
        jt.load_policy(seeds.run_dir)
    content = files.load(seeds.run_dir / "policy.pkl", "policy")
    for change in ({"members": []}, {"members": content["members"] * 200}, {"state": content["members"][0]}):
        files.save(tmp_path / "bad.pkl", "policy", content | change)
        with pytest.raises(FileError, match="is damaged"):
            jt.load_policy(tmp_path / "bad.pkl", agent=AGENT)


@struct.dataclass
class Telling(DQN):
    """A DQN that tells what it expects of its actions."""

    def select_action(self, state: Any, obs: Any, key: Any, deterministic: bool = False) -> Any:
        action, _ = super().select_action(state, obs, key, deterministic)
        values = state.network.of(state.params, jnp.asarray(obs))
        return action, {"value": values.max(-1), "probabilities": jax.nn.softmax(values)}


def test_what_an_agent_tells_of_its_decision_is_explained_and_exported(
    trained: Any, env: TradingEnv, tmp_path: Path
) -> None:
    policy = Policy(Telling(**vars(AGENT)), trained.state, trained.policy.about)
    result = jt.backtest(trained.agent, env.market, state=trained.state, env=trained.env).by_symbol["S0"]
    told = policy.explain(result, 20)  # which refuses a result with other decisions
    scaled = Observation(np.asarray(trained.state.normalizer(told.seen.window)), told.seen.account)
    values = np.asarray(jax.jit(trained.state.network.of)(trained.state.params, np.asarray(scaled)[None]))[0]
    assert told.value == pytest.approx(values.max(), rel=1e-5)
    assert told.probabilities is not None
    assert list(told.probabilities) == list(env.positions)
    np.testing.assert_allclose(list(told.probabilities.values()), jax.nn.softmax(values), rtol=1e-5)
    policy.export(tmp_path / "p", "stablehlo")
    exported = jax.export.deserialize(bytearray((tmp_path / "p").read_bytes()))
    target, value, shares = exported.call(told.seen.window[None, :, 0], told.seen.account)
    assert target[0] == told.target[0]
    assert value[0] == pytest.approx(told.value, rel=1e-5)
    np.testing.assert_allclose(shares[0], list(told.probabilities.values()), rtol=1e-5)
    with pytest.raises(ValueError, match="assets=2` is of a portfolio"):
        policy.export(tmp_path / "p", "stablehlo", assets=2)


@struct.dataclass
class Other(DQN):
    """Another class."""


def test_a_file_imports_nothing_and_says_what_it_wants(trained: Any, env: TradingEnv, tmp_path: Path) -> None:
    path = trained.policy_path
    with pytest.raises(ValueError, match=r"a policy of DQN, an agent of your own; give it, as `agent=DQN\("):
        jt.load_policy(path)
    with pytest.raises(ValueError, match="a policy of DQN, not of Other"):
        jt.load_policy(path, agent=Other())
    with pytest.raises(FileError, match=r"does not fit DQN.*give the agent the settings with which it was trained"):
        jt.load_policy(path, agent=AGENT.replace(hidden=(9,)))
    with pytest.raises(ValueError, match=r"give it, as in `backtest\(trained\.agent"):
        jt.backtest(AGENT, env.market, state=trained.state)

    content = files.load(path, "policy")
    assert content["state"]["opt_state"] is None
    for change, message in [
        ({"state": 3}, "does not fit DQN"),
        ({"name": 3}, "is damaged .name is 3, and must be a text"),
        ({"further": 3}, "is damaged .further is a field that is not known"),
        ({"version": 9}, "install a newer jaxtrader"),
        ({"about": {**content["about"], "env": {}}}, "is damaged .about.env.rules is missing"),
        ({"state": {**content["state"], "epsilon": np.float32("nan")}}, "not finite"),
        ({"state": {**content["state"], "further": np.zeros(2)}}, r"its state\['further'\] is"),
    ]:
        files.save(tmp_path / "bad.pkl", "policy", content | change)
        with pytest.raises(FileError, match=message):
            jt.load_policy(tmp_path / "bad.pkl", agent=AGENT)


def test_rollouts_of_an_ordinary_environment_keep_what_followed_each_step() -> None:
    rollouts = EnvRollouts(Tabular(), 7, 4)

    @jax.jit
    def lived(key: jax.Array) -> Rollout:
        state = AGENT.init(key, Tabular(), TRUNCATED)
        return rollouts.collect(rollouts.begin(key, TRUNCATED), AGENT, state, TRUNCATED, key)[1]

    rollout = lived(jax.random.key(0))
    assert rollout.next_observations.shape == rollout.observations.shape == (7, 4, 1)
    over = np.asarray(rollout.truncated[:-1, :, 0])
    assert over.any()
    following = np.asarray(rollout.observations[1:])
    np.testing.assert_array_equal(rollout.next_observations[:-1][~over], following[~over])
    # A state of this environment lasts until its end: the next observation is its own, not that of the new episode.
    np.testing.assert_array_equal(rollout.next_observations, rollout.observations)


@struct.dataclass
class Waiting(MarketAgent):
    """Acts on market paths by the last feature of the bar, and learns nothing."""

    needs_next = True

    def init(self, key: Any, env: Any, params: Any) -> Any:
        return {}

    def encode(self, state: Any, chunk: Any) -> Any:
        return chunk[..., 3:, 0, 0]

    def act(self, state: Any, context: Any, account: Any, key: Any, deterministic: bool = False) -> Any:
        return jnp.broadcast_to(context > 0, account.shape[:-2]).astype(jnp.int32) * 2, {}

    def select_action(self, state: Any, obs: Any, key: Any, deterministic: bool = False) -> Any:
        return self.act(state, obs.window[..., -1, 0, 0], obs.account, key)

    def learn(self, state: Any, rollout: Rollout, params: Any, key: Any) -> Any:
        return state, {}


@pytest.mark.slow
def test_rollouts_of_market_paths_keep_the_account_after_each_step(env: TradingEnv, raw_params: Any) -> None:
    rollouts, key = MarketRollouts(env, 8, 3, 2), jax.random.key(0)
    collect = jax.jit(rollouts.collect)
    paths = jax.jit(rollouts.begin)(key, raw_params)
    after, rollout, _ = collect(paths, Waiting(), {}, raw_params, key)
    assert rollout.next_account.shape == rollout.account.shape == (8, 3, 2, 1, 4)
    _, following, _ = collect(after, Waiting(), {}, raw_params, key)
    after, rollout, following = jax.tree.map(np.asarray, (after, rollout, following))
    np.testing.assert_array_equal(rollout.next_account[:-1], rollout.account[1:])
    same = after.age > 0  # a path that begins anew has other accounts
    assert same.any()
    np.testing.assert_array_equal(rollout.next_account[-1][same], following.account[0][same])
    bars = jax.jit(lambda rollout, params: rollout.chunks(params, env.window))(rollout, raw_params)
    assert bars.shape == (3, env.window + 8, 1, 3)
    first = int(rollout.cursor[0])
    np.testing.assert_array_equal(bars[0], raw_params.arrays.features[first - 3 : first + 9])


def test_settings_that_are_no_plain_data_do_not_stop_a_training_at_its_end() -> None:
    @struct.dataclass
    class WithFunction(DQN):
        act_by: Any = struct.field(pytree_node=False, default=max)

    plain = plain_agent(WithFunction(learning_rate=jnp.float32(0.5)))
    assert plain["act_by"] == repr(max)
    assert plain["learning_rate"] == 0.5
    assert files.encoded("policy", plain)


@pytest.mark.slow
@pytest.mark.usefixtures("optimized")
def test_deep_q_learning_earns_most_of_a_known_optimum(tmp_path: Path) -> None:
    process = jt.datasets.AR1(volatility=0.02, r2=0.05, persistence=0.8)
    env = jt.TradingEnv(process.market(100_000, seed=0), window=1, rules=jt.Rules(rebalance_band=0.0))
    best = jt.optimum.solve(process, env, bars=50_000)
    settings = {"num_envs": 64, "rollout_length": 32, "progress": False}
    trainer = jt.Trainer(env, DQN(gamma=0.9), valid=best, total_steps=80_000, run_dir=tmp_path / "run", **settings)
    assert trainer.train().best["optimum_share"] > 0.9


@pytest.mark.slow
def test_deep_q_learning_is_walked_forward(make_market: Any, tmp_path: Path) -> None:
    env = jt.TradingEnv(make_market((300,)), window=4, episode_length=16)
    settings = {"num_envs": 8, "rollout_length": 8, "total_steps": 128, "progress": False}
    folds = jt.walk_forward(env, AGENT, 2, run_dir=tmp_path / "folds", **settings)
    assert len(folds.folds) == 2
    assert len(folds.policies.policies) == 2


@pytest.mark.slow
@pytest.mark.usefixtures("optimized")
def test_deep_q_learning_balances_a_pole(tmp_path: Path) -> None:
    import gymnax

    env, params = gymnax.make("CartPole-v1")
    settings = {"num_envs": 64, "rollout_length": 32, "total_steps": 400_000, "progress": False}
    trained = jt.Trainer(env, DQN(gamma=0.99), env_params=params, run_dir=tmp_path / "run", **settings).train()
    returns = [record["episode_return"] for record in trained.history]
    assert np.nanmean(returns[:3]) < 40
    assert np.nanmean(returns[-10:]) > 100
