"""PPOAgent: proximal policy optimisation (Schulman et al. 2017, https://arxiv.org/abs/1707.06347).

The agent is a frozen pytree of settings, its state is data (`PPOState`), and its methods are pure functions of the two.
They stand in the order in which training calls them: check, begin, anneal, act, learn, save.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from os import PathLike
from typing import Any, cast, get_args

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import Array
from jax.export import is_symbolic_dim
from jax.flatten_util import ravel_pytree
from jaxtyping import Float, Int, PRNGKeyArray

from jaxtrader import devices
from jaxtrader.agents import blocks
from jaxtrader.agents.action_spec import Bounds, action_spec_of, check_bounds, log_std_parameter
from jaxtrader.agents.advantages import explained_variance, gae, market_control_variate, regress_out
from jaxtrader.agents.distributions import Distribution
from jaxtrader.agents.networks import ActorCritic, PortfolioActorCritic, check_layers
from jaxtrader.agents.normalization import RunningNormalizer, ValueScale, standardized
from jaxtrader.agents.own_modules import OwnActorCritic, OwnPortfolio, own
from jaxtrader.agents.policy_file import write_policy
from jaxtrader.agents.ppo_settings import PPOSettings, Precision, Schedule
from jaxtrader.agents.ppo_state import PPOState
from jaxtrader.agents.protocol import MarketAgent, Rollout, check_paths
from jaxtrader.envs.observation import Observation, chunks
from jaxtrader.envs.protocols import Environment
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.setting_checks import check_flag, check_number, check_whole, setting

PRECISIONS = get_args(Precision)
# Where nothing pays, noise alone would make the policy certain of some action. Without a bonus a policy never learns to
# stay out of a random walk.
DISCRETE_ENTROPY_COEF = 0.01
# By the kind of actions, the logarithm of the standard deviation at the start and at the end of training. None: it is
# learnt. A learnt deviation needs many times as long to find positions between the bounds. A lower end is worse, since
# actions that hardly differ tell the critic little about what a position is worth. Weights lose by any schedule.
LOG_STD: dict[str, tuple[float, float | None]] = {"box": (0.0, -1.75), "simplex": (0.0, None)}
MAX_LOG_STD = 3.0


class PPOAgent(PPOSettings, MarketAgent, struct.PyTreeNode, frozen=True):
    """PPO with clipped ratios, generalised advantages and Adam. Its settings are those of `PPOSettings`.

    `validate` checks the settings, and `Trainer` calls it. The constructor checks nothing, because JAX calls it too,
    with tracers and other leaves in the place of numbers.

    Example:
        >>> agent = jt.PPOAgent(gamma=0.95, hidden=(32, 32), encoder="tcn")
        >>> agent.replace(num_epochs=2).num_epochs
        2
    """

    several_devices = True

    # --- check ---

    def validate(self) -> PPOAgent:
        """Return self, or raise ValueError that names the value, its limits and the way out."""
        limits: dict[str, tuple[float, float]] = {
            "learning_rate": (0.0, 1.0),
            "gamma": (0.0, 1.0),
            "gae_lambda": (0.0, 1.0),
            "clip_range": (0.0, 10.0),
            "entropy_coef": (0.0, 10.0),
            "value_coef": (0.0, 100.0),
            "log_std_init": (-MAX_LOG_STD, MAX_LOG_STD),
            "log_std_final": (-MAX_LOG_STD, MAX_LOG_STD),
            "max_grad_norm": (0.0, math.inf),
        }
        for name, (low, high) in limits.items():
            value, usual = getattr(self, name), getattr(PPOSettings, name)
            if isinstance(value, Array) and not value.ndim:
                value = value.item()
            if value is None and usual is None:
                continue
            check_number(name, value)
            if not low <= float(value) <= high:
                raise ValueError(f"{setting(name, value)} is outside [{low:g}, {high:g}]")
        if not float(self.learning_rate) > 0:
            raise ValueError("`learning_rate=0` would learn nothing; 3e-4 to 3e-3 are usual")
        for name in ("num_epochs", "num_minibatches"):
            check_whole(name, getattr(self, name))
        for name in ("market_baseline", "normalize_observations"):
            check_flag(name, getattr(self, name))
        if self.schedule not in get_args(Schedule):
            raise ValueError(f"{setting('schedule', self.schedule)} is unknown; use constant or linear")
        if self.network is not None:
            if isinstance(self.network, str):
                raise ValueError(f"{setting('network', self.network)} must be a Flax module, not its name")
            own(self.network)
            if self.encoder != "mlp":
                raise ValueError("`network` reads the window itself; leave out `encoder`")
        if not isinstance(self.encoder, str):
            own(self.encoder)
        check_layers(self)
        if self.matmul_precision not in PRECISIONS:
            raise ValueError(
                f"{setting('matmul_precision', self.matmul_precision)} is unknown; use {', '.join(PRECISIONS)}"
            )
        return self

    def check_env(self, env: Environment) -> None:
        """Raise ValueError where the encoder has no window of bars to read, or a module of the user's own does not fit.

        That module is called once, on random numbers.
        """
        market = isinstance(env, TradingEnv)
        if isinstance(self.encoder, str) and self.encoder != "mlp" and not (market and env.window > 1):
            shows, way = f"{env.name} shows one observation", "train in a TradingEnv with `window=32`"
            if market:
                shows, way = "`window=1` shows one", "use `window=32`"
            raise ValueError(
                f"{setting('encoder', self.encoder)} reads a window of 2 bars or more, and {shows}; {way}, or "
                "`encoder='mlp'`"
            )
        if market:
            self._network(env, None)[0].check()

    # --- begin ---

    def init(self, key: PRNGKeyArray, env: Environment, params: Any) -> PPOState:
        """Return a fresh state for the environment's observations and actions.

        Raises ValueError where the observation is no array, the actions are neither discrete nor a bounded box, or the
        encoder has no window to read.
        """
        self.check_env(env)
        network, bounds, obs_shape = self._network(env, params)
        if obs_shape is not None:
            network.check()
        weights = network.fresh(key)
        if network.actions.continuous:
            first, _ = self._log_std_ends(network)
            weights["log_std"] = jnp.full_like(weights["log_std"], log_std_parameter(first))
        ordinary_normalizer = obs_shape is not None and self.normalize_observations
        return PPOState(
            params=weights,
            opt_state=self._optimizer().init(weights),
            learning_rate=jnp.asarray(self.learning_rate, jnp.float32),
            value_scale=ValueScale.fresh(),
            normalizer=RunningNormalizer.fresh(obs_shape) if ordinary_normalizer else None,
            network=network,
            obs_ndim=1 if obs_shape is None else len(obs_shape),
            bounds=bounds,
            decision_every=env.decision_every if isinstance(env, TradingEnv) else 1,
        )

    def _network(self, env: Environment, params: Any) -> tuple[ActorCritic, Bounds | None, tuple[int, ...] | None]:
        """Return the network that fits the environment, its actions' bounds, and an ordinary observation's shape."""
        actions, bounds = action_spec_of(env, params)
        if isinstance(env, TradingEnv):
            window, account, obs_shape = env.window, len(env.account_names), None
            assets, features = env.assets, len(env.market.feature_names)
        else:
            obs, _ = jax.eval_shape(env.reset, jax.random.key(0), params)
            if not isinstance(obs, jax.ShapeDtypeStruct):
                raise ValueError(
                    f"PPOAgent needs an array as observation, {env.name} has {type(obs).__name__}; flatten it"
                )
            window, account, obs_shape = 1, 0, obs.shape
            assets, features = 1, math.prod(obs.shape)
        network = self._kind(assets)(
            window=window,
            features=features,
            account=account,
            actions=actions,
            hidden=tuple(self.hidden),
            encoder=self.encoder if isinstance(self.encoder, str) else own(self.encoder),
            encoder_width=self.encoder_width,
            encoder_depth=self.encoder_depth,
            compute_dtype=self.compute_dtype,
        )
        return network, bounds, obs_shape

    def _kind(self, assets: int) -> Callable[..., Any]:
        """Return the class of the network for so many assets, with a module of the user's own where that is all."""
        if self.network is None:
            return PortfolioActorCritic if assets > 1 else ActorCritic
        return partial(OwnPortfolio if assets > 1 else OwnActorCritic, module=own(self.network))

    def _optimizer(self) -> optax.GradientTransformation:
        """Return the clip of the global norm, and Adam's direction, over all weights as one vector.

        The learning rate is in the state.
        """
        return optax.flatten(optax.chain(optax.clip_by_global_norm(self.max_grad_norm), optax.scale_by_adam(eps=1e-5)))

    def prepare(self, state: PPOState, env_params: Any) -> tuple[PPOState, Any]:
        """Normalise the market's features by the moments in the state, which are fitted to this market at first.

        It runs on the host before anything is traced. Parameters of ordinary environments pass unchanged.

        Raises ValueError where the actions are a box without finite bounds, which `init` under jit cannot see.
        """
        check_bounds(state.bounds)
        return standardized(state, env_params)

    def start_from(self, state: PPOState, earlier: PPOState, keep_scale: bool) -> PPOState:
        """Return the state with the weights of an earlier policy, and with its normalisation where that is kept.

        Raises ValueError where the earlier policy has another network, or other actions.
        """
        now, before = state.network, earlier.network
        changed = []
        if isinstance(now, PortfolioActorCritic) != isinstance(before, PortfolioActorCritic):
            changed.append("the policy divides one account between assets, or trades one asset, and this training not")
        elif isinstance(now, PortfolioActorCritic) and before.actions.kind == now.actions.kind:
            before = earlier.for_assets(now.actions.size).network
        modules = [each.module if isinstance(each, OwnActorCritic) else None for each in (now, before)]
        if modules[0] != modules[1]:
            changed.append(f"`network` is {modules[0]}, and the policy has {modules[1]}")
        unused = () if now.encoder != "mlp" or before.encoder != "mlp" else ("encoder_width", "encoder_depth")
        if any(modules):
            unused = ("hidden", "encoder", "encoder_width", "encoder_depth")
        for name in ("window", "features", "account", "actions", "hidden", "encoder", "encoder_width", "encoder_depth"):
            if name not in unused and getattr(now, name) != getattr(before, name):
                changed.append(f"`{name}` is {getattr(now, name)}, and the policy has {getattr(before, name)}")
        if changed:
            raise ValueError(f"the earlier policy has another network: {'; '.join(changed)}; give what the policy has")
        normalizer = earlier.normalizer if keep_scale else state.normalizer
        return state.replace(params=earlier.params, normalizer=normalizer)

    # --- anneal ---

    def halve_rate(self, state: PPOState) -> tuple[PPOAgent, PPOState]:
        """Return the agent and the state with half the learning rate, in force and of the schedule."""
        half = state.replace(learning_rate=state.learning_rate * 0.5)
        return self.replace(learning_rate=self.learning_rate * 0.5), half

    def anneal(self, state: PPOState, progress: Float[Array, ""]) -> PPOState:
        """Return the state with the learning rate and the scheduled deviation at `progress`, from 0 to 1."""
        left = jnp.maximum(1 - progress, 0)
        if self.schedule == "linear":
            state = state.replace(learning_rate=self.learning_rate * left)
        first, last = self._log_std_ends(state.network)
        if last is None:
            return state
        scheduled = jnp.full_like(state.params["log_std"], log_std_parameter(last + (first - last) * left))
        return state.replace(params={**state.params, "log_std": scheduled})

    def _log_std_ends(self, network: ActorCritic) -> tuple[Any, Any]:
        """Return the logarithm of the deviation at the start and the end. The end is None where it is not scheduled."""
        first, last = LOG_STD.get(network.actions.kind, (0.0, None))
        if self.log_std_init is None and self.log_std_final is None:
            return first, last
        given = first if self.log_std_init is None else self.log_std_init
        return given, self.log_std_final if network.actions.continuous else None

    # --- act ---

    def encode(self, state: PPOState, chunk: Float[Array, "*b bars assets F"]) -> Float[Array, "*b decisions context"]:
        """Return the contexts of all decisions in chunks of prepared bars, some chunks at a time (see blocks.py)."""
        encode = partial(self._apply, state.network, state.params, "encode")
        paths = chunk.reshape(-1, *chunk.shape[-3:])
        if is_symbolic_dim(paths.shape[0]):  # an exported policy takes any number of decisions
            return encode(chunk)
        count = blocks.block_count(len(paths), blocks.encoder_activations(state.network, chunk.shape[-3:]))
        contexts = blocks.map_blocks(encode, paths, count)
        return contexts.reshape(*chunk.shape[:-3], *contexts.shape[1:])

    def act(
        self, state: PPOState, context: Array, account: Array | None, key: PRNGKeyArray, deterministic: bool = False
    ) -> tuple[Array, dict[str, Array]]:
        """Draw actions, with `log_prob` and `value`, or return the mode, with what explanations show too.

        The context broadcasts against the account.
        """
        policy, value = self._head(state, state.params, context, account)
        mean, std = state.value_scale.moments()
        action: Any = policy.mode() if deterministic else policy.sample(key)
        about = {"log_prob": policy.log_prob(action), "value": mean + std * value}
        if deterministic:
            about |= policy.describe()
            # A file of version 1 or 2 does not hold the units of the values.
            about["value"] = jnp.where(state.value_scale.weight > 0, about["value"], jnp.nan)
        return state.network.actions.to_env(action), about

    def select_action(
        self, state: PPOState, obs: Any, key: PRNGKeyArray, deterministic: bool = False
    ) -> tuple[Array, dict[str, Array]]:
        """Act on observations `[*b]` of a TradingEnv with prepared parameters, or of an ordinary environment."""
        if isinstance(obs, Observation):
            return self.act(state, self.encode(state, obs.window)[..., 0, :], obs.account, key, deterministic)
        batch = obs.shape[: obs.ndim - state.obs_ndim]
        if isinstance(state.normalizer, RunningNormalizer):
            obs = state.normalizer(obs)
        context = self.encode(state, obs.reshape(*batch, 1, 1, state.network.features))[..., 0, :]
        return self.act(state, context, None, key, deterministic)

    def _head(self, state: PPOState, weights: Any, context: Array, account: Any) -> tuple[Distribution, Array]:
        """Return the distribution of the actions, and the value in units of the value scale."""
        network = state.network
        outputs, value = self._apply(network, weights, "head", context, account)
        log_std = weights.get("log_std")
        if self._log_std_ends(network)[1] is not None:
            log_std = jax.lax.stop_gradient(log_std)
        return network.actions.distribution(outputs, log_std, state.bounds, network.tradable(account)), value

    def _apply(self, network: ActorCritic, weights: Any, method: str, *inputs: Any) -> Any:
        """Call a method of the network. Its matrix products and their gradients have the agent's precision."""
        with jax.default_matmul_precision(self.matmul_precision):
            return network.apply({"params": weights}, *inputs, method=method)

    # --- learn ---

    def learn(
        self, state: PPOState, rollout: Rollout, params: Any, key: PRNGKeyArray
    ) -> tuple[PPOState, dict[str, Array]]:
        """Make one update: `num_epochs` passes of `num_minibatches` gradient steps over a rollout.

        Args:
            state: the state that acted in the rollout.
            rollout: time-major. Its number of paths must be a multiple of `num_minibatches`.
            params: the environment's prepared parameters, whose arrays hold the bars of the paths.
            key: draws the permutations. With several devices each has its own paths, and all have this key.

        Returns:
            The new state and scalar metrics, which are means over all gradient steps.
        """
        paths = rollout.reward.shape[1]
        check_paths(paths, self.num_minibatches)
        advantage, target = self._advantages(state, rollout, params)
        state = state.replace(value_scale=state.value_scale.update(target))
        data, normalizer = self._training_data(state, rollout, advantage, target)

        # All weights are one vector here, and so are the metrics of a step. What is done to each array of a tree is a
        # kernel for each, and compiles as often.
        to_metrics: Callable[[Array], dict[str, Array]] = dict

        def minibatch(learned: tuple[Array, Any], rows: Array) -> tuple[tuple[Array, Any], Array]:
            nonlocal to_metrics
            learned, metrics = self._gradient_step(state, learned, jax.tree.map(lambda x: x[rows], data), params)
            vector, to_metrics = ravel_pytree(metrics)
            return learned, vector

        def epoch(learned: tuple[Array, Any], epoch_key: Array) -> tuple[tuple[Array, Any], Array]:
            return jax.lax.scan(minibatch, learned, shuffled(epoch_key, paths, self.num_minibatches))

        weights, to_params = ravel_pytree(state.params)
        start = (weights, state.opt_state)
        (weights, opt_state), steps = jax.lax.scan(epoch, start, jax.random.split(key, self.num_epochs))
        metrics = {
            **to_metrics(steps.mean((0, 1))),
            "explained_variance": explained_variance(target, rollout.value),
            "learning_rate": state.learning_rate,
        }
        return state.replace(params=to_params(weights), opt_state=opt_state, normalizer=normalizer), metrics

    def _advantages(self, state: PPOState, rollout: Rollout, params: Any) -> tuple[Array, Array]:
        """Return advantages, less what the market alone explains of them, and value targets."""
        done = rollout.terminated | rollout.truncated
        advantage, target = gae(
            rollout.reward, rollout.value, rollout.next_value, rollout.terminated, done, self.gamma, self.gae_lambda
        )
        if rollout.cursor is not None and self.market_baseline and state.network.actions.continuous:
            advantage = regress_out(advantage, market_control_variate(self, state, rollout, params))
        return advantage, target

    def _training_data(
        self, state: PPOState, rollout: Rollout, advantage: Array, target: Array
    ) -> tuple[dict[str, Any], Any]:
        """Return what the loss reads, path-major, with advantages, targets and observations normalised.

        Also return the normaliser for the next rollout. This update still uses the old one, so that learning sees the
        numbers that acting saw.
        """
        center, variance = devices.moments(advantage)
        mean, std = state.value_scale.moments()
        observations, normalizer = rollout.observations, state.normalizer
        if isinstance(normalizer, RunningNormalizer):
            observations, normalizer = normalizer(observations), normalizer.update(observations)
        data = {
            "action": state.network.actions.from_env(rollout.action),
            "log_prob": rollout.log_prob,
            "advantage": (advantage - center) / (jnp.sqrt(variance) + 1e-8),
            "target": (target - mean) / std,
            "account": rollout.account,
            "observations": observations,
        }
        # Path-major data make a minibatch a gather of contiguous rows.
        data = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), data)
        data["cursor"] = rollout.cursor
        return data, normalizer

    def _gradient_step(
        self, state: PPOState, learned: tuple[Float[Array, " weight"], Any], batch: dict[str, Any], params: Any
    ) -> tuple[tuple[Float[Array, " weight"], Any], dict[str, Array]]:
        """Update weights and optimiser by one gradient step on a minibatch of paths, of each device's own."""
        weights, opt_state = learned
        _, to_params = ravel_pytree(state.params)
        tree, metrics = devices.mean(self._gradient(to_params(weights), state, batch, params))
        grads, _ = ravel_pytree(tree)
        direction, opt_state = self._optimizer().update(grads, opt_state, weights)
        weights = weights - state.learning_rate * cast(Array, direction)
        return (weights, opt_state), {**metrics, "grad_norm": optax.tree.norm(grads)}

    def _gradient(self, weights: Any, state: PPOState, batch: dict[str, Any], params: Any) -> tuple[Any, Any]:
        """Return the gradient of the loss on a minibatch, and its metrics: means over equal blocks of paths."""
        gradient = partial(jax.grad(self._loss, has_aux=True), weights, state)
        paths, decisions, accounts = batch["log_prob"].shape
        chunk = jax.eval_shape(lambda: self._decision_inputs(state, batch, params)[0])
        activations = blocks.encoder_activations(state.network, chunk.shape[1:])
        activations += state.network.head_activations(decisions * accounts)
        size = sum(leaf.size for leaf in jax.tree.leaves(weights))
        count = blocks.block_count(paths, activations, size)
        if count == 1:
            return gradient(batch, params)
        parts = blocks.split_blocks(batch, count)
        add = lambda sums, part: (sums + ravel_pytree(gradient(part, params))[0], None)  # noqa: E731
        shapes = jax.eval_shape(lambda: gradient(jax.tree.map(lambda x: x[0], parts), params))
        start, to_tree = ravel_pytree(jax.tree.map(jnp.zeros_like, shapes))
        sums, _ = jax.lax.scan(add, start, parts)
        return to_tree(sums / count)

    def _loss(self, weights: Any, state: PPOState, batch: dict[str, Any], params: Any) -> tuple[Array, Any]:
        """Return PPO's loss on a minibatch `[path, time, account]`, and its metrics. Only `weights` are learnt."""
        network = state.network
        chunk, account = self._decision_inputs(state, batch, params)
        context = self._apply(network, weights, "encode", chunk)
        context = context.reshape(*batch["log_prob"].shape[:2], 1, context.shape[-1])  # one for all accounts of a path
        policy, value = self._head(state, weights, context, account)

        log_ratio = policy.log_prob(batch["action"]) - batch["log_prob"]
        ratio = jnp.exp(log_ratio)
        clipped = jnp.clip(ratio, 1 - self.clip_range, 1 + self.clip_range)
        policy_loss = -jnp.minimum(ratio * batch["advantage"], clipped * batch["advantage"]).mean()
        value_loss = 0.5 * ((value - batch["target"]) ** 2).mean()
        entropy = policy.entropy().mean()
        loss = policy_loss + self.value_coef * value_loss
        if self.entropy_coef is not None:
            loss = loss - self.entropy_coef * entropy
        elif not network.actions.continuous:
            loss = loss - DISCRETE_ENTROPY_COEF * entropy
        return loss, {
            "loss": loss,
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "entropy": entropy,
            # Schulman's k3, http://joschu.net/blog/kl-approx.html. `ratio - 1` would lose all digits near a ratio of 1.
            "approx_kl": (jnp.expm1(log_ratio) - log_ratio).mean(),
            "clip_fraction": (jnp.abs(ratio - 1) > self.clip_range).mean(),
        }

    def _decision_inputs(self, state: PPOState, batch: dict[str, Any], params: Any) -> tuple[Array, Array | None]:
        """Return what a minibatch's decisions saw: the chunk of bars of each path, and the account."""
        if batch["observations"] is None:
            decisions = batch["log_prob"].shape[1]
            chunk = chunks(params.arrays, batch["cursor"], state.network.window, decisions, state.decision_every)
            return chunk, batch["account"]
        # An ordinary observation is a window of one bar, so time is the chunk's axis of bars.
        observations = batch["observations"]
        return observations.reshape(*observations.shape[:2], 1, state.network.features), None

    # --- save ---

    def save_model(self, path: str | PathLike[str], state: PPOState, about: dict[str, Any]) -> None:
        """Write a policy file (see policy_file.py). `about` says what the policy was trained on."""
        write_policy(path, state, about)


def shuffled(key: PRNGKeyArray, paths: int, minibatches: int) -> Int[Array, "minibatch path"]:
    """Return random minibatches of a device's paths: of each shard of `minibatches` paths, each takes one.

    So the minibatches of all devices together are the same on any number of devices.
    """
    order = jax.vmap(partial(jax.random.permutation, x=minibatches))(devices.shard_keys(key, paths // minibatches))
    return order.T + jnp.arange(0, paths, minibatches)
