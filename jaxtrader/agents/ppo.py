"""PPOAgent: proximal policy optimisation (Schulman et al. 2017, https://arxiv.org/abs/1707.06347) on whole lanes.

The agent is a frozen pytree of hyper-parameters: floats are leaves, so they can be swept by vmap; structure is static.
Its state is data (`PPOState`); its methods are pure, in the order in which a training step calls them.
"""

from __future__ import annotations

import math
from functools import partial
from numbers import Integral
from os import PathLike
from typing import Any, ClassVar, Literal, get_args

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from jaxtrader import devices
from jaxtrader.agents import encoders
from jaxtrader.agents.actions import Bounds, actions_of, check_bounds, log_std_parameter
from jaxtrader.agents.advantages import gae, less_explained
from jaxtrader.agents.distributions import Distribution
from jaxtrader.agents.networks import ACTIVATIONS, COMPUTE_DTYPES, ActorCritic
from jaxtrader.agents.normalization import RunningNormalizer, ValueScale, fit_normalizer, normalize
from jaxtrader.agents.portfolio import PortfolioActorCritic
from jaxtrader.agents.protocol import Rollout
from jaxtrader.agents.state import PPOState, load, save
from jaxtrader.envs.state import Observation
from jaxtrader.envs.windows import chunks, contexts

Schedule = Literal["constant", "linear"]
PRECISIONS = ("default", "high", "highest")
# Where nothing pays, noise would make the policy certain of something: with 0 a random walk's is never left alone.
ENTROPY_COEF = 0.01
# The first logarithm of the deviation and the last, None where it is learnt. Learnt, positions between the bounds take
# many times as long; led further down, they end lower (actions that hardly differ tell the critic little of what a
# position is worth), and so do weights that are led.
LOG_STD: dict[str, tuple[float, float | None]] = {"box": (0.0, -1.75), "simplex": (0.0, None)}
LOG_STD_MOST = 3.0


class PPOAgent(struct.PyTreeNode):
    """PPO with clipped ratios, generalised advantages and Adam.

    Attributes:
        learning_rate: at the start of training.
        gamma, gae_lambda: discount a step, decay of the advantage trace.
        clip_range: bound of the probability ratio.
        entropy_coef, value_coef: weights in the loss; the entropy's None is ENTROPY_COEF where actions are discrete,
            0 where they are continuous: a bonus holds those wide open.
        log_std_init, log_std_final: of continuous actions, the logarithm of the deviation, in halves of a box's range
            (of weights, of their log ratios), led from the one to the other over the run, whatever the schedule of the
            rate; with the former alone it is learnt from there. None for both: see LOG_STD. Led by `anneal`.
        market_baseline: of continuous positions on lanes, take from each advantage what the market alone did to it, see
            `_market_part`.
        max_grad_norm: bound of the gradient's global norm.
        schedule: "linear" decays the rate to 0 over the run, "constant" leaves it.
        num_epochs, num_minibatches: passes over a rollout, and the parts of each; a part is a set of whole lanes.
        hidden, activation, shared: the heads, see `ActorCritic`.
        encoder: what reads the window: "mlp", "tcn" (dilated causal convolutions) or "attention" (causal and local).
        encoder_width: channels of tcn and attention; of attention a multiple of 16.
        encoder_depth: their layers; None for as many as tcn needs with kernels of two bars, and for 2 of attention.
        compute_dtype: "float32", or "bfloat16" in encoder and hidden layers; weights and all results stay float32.
            bfloat16 pays on accelerators only.
        matmul_precision: of float32 products: "highest" is float32; "high" and "default" let an accelerator round their
            inputs (TF32, bfloat16) to be faster. A CPU knows no difference.
        normalize_observations: of ordinary environments, by their running mean and deviation. Market features are
            always normalised, by those of the training bars.
    """

    several_devices: ClassVar[bool] = True

    learning_rate: float = 1e-3
    gamma: float = 0.99
    gae_lambda: float = 0.95
    clip_range: float = 0.2
    entropy_coef: float | None = None
    value_coef: float = 0.5
    log_std_init: float | None = None
    log_std_final: float | None = None
    max_grad_norm: float = 0.5
    num_epochs: int = struct.field(pytree_node=False, default=4)
    num_minibatches: int = struct.field(pytree_node=False, default=4)
    schedule: Schedule = struct.field(pytree_node=False, default="linear")
    hidden: tuple[int, ...] = struct.field(pytree_node=False, default=(64, 64))
    activation: str = struct.field(pytree_node=False, default="tanh")
    shared: bool = struct.field(pytree_node=False, default=False)
    market_baseline: bool = struct.field(pytree_node=False, default=True)
    normalize_observations: bool = struct.field(pytree_node=False, default=False)
    encoder: encoders.Kind = struct.field(pytree_node=False, default="mlp")
    encoder_width: int = struct.field(pytree_node=False, default=32)
    encoder_depth: int | None = struct.field(pytree_node=False, default=None)
    compute_dtype: str = struct.field(pytree_node=False, default="float32")
    matmul_precision: str = struct.field(pytree_node=False, default="highest")

    def validate(self) -> PPOAgent:
        """Return self, or raise ValueError that names the value, its limits and the way out."""
        limits: dict[str, tuple[float, float]] = {
            "learning_rate": (0.0, 1.0),
            "gamma": (0.0, 1.0),
            "gae_lambda": (0.0, 1.0),
            "clip_range": (0.0, 10.0),
            "entropy_coef": (0.0, 10.0),
            "value_coef": (0.0, 100.0),
            "log_std_init": (-LOG_STD_MOST, LOG_STD_MOST),
            "log_std_final": (-LOG_STD_MOST, LOG_STD_MOST),
            "max_grad_norm": (0.0, math.inf),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if value is not None and not low <= float(value) <= high:
                raise ValueError(f"PPOAgent({name}={float(value):g}) is outside [{low:g}, {high:g}]")
        if not float(self.learning_rate) > 0:
            raise ValueError("PPOAgent(learning_rate=0) would learn nothing; 3e-4 to 3e-3 are usual")
        for name in ("num_epochs", "num_minibatches"):
            if not isinstance(getattr(self, name), Integral) or getattr(self, name) < 1:
                raise ValueError(f"PPOAgent({name}={getattr(self, name)}) must be a whole number, at least 1")
        if self.schedule not in get_args(Schedule):
            raise ValueError(f"PPOAgent(schedule={self.schedule!r}) is unknown; use 'constant' or 'linear'")
        if self.activation not in ACTIVATIONS:
            raise ValueError(
                f"PPOAgent(activation={self.activation!r}) is unknown; use one of {', '.join(ACTIVATIONS)}"
            )
        if not isinstance(self.hidden, tuple):  # a list has no hash, which jit asks of what is static
            raise ValueError(f"PPOAgent(hidden={self.hidden!r}) must be a tuple of widths such as (64, 64)")
        if not self.hidden or any(width < 1 for width in self.hidden):
            raise ValueError(f"PPOAgent(hidden={self.hidden}) needs at least one layer, each at least 1 wide")
        self._validate_encoder()
        return self

    def _validate_encoder(self) -> None:
        if self.encoder not in get_args(encoders.Kind):
            raise ValueError(f"PPOAgent(encoder={self.encoder!r}) is unknown; use 'mlp', 'tcn' or 'attention'")
        unit = encoders.HEAD_WIDTH if self.encoder == "attention" else 1
        if not isinstance(self.encoder_width, Integral) or self.encoder_width < 1 or self.encoder_width % unit:
            raise ValueError(
                f"PPOAgent(encoder_width={self.encoder_width}) must be a whole number, at least 1"
                + f"; of attention a multiple of {unit}" * (unit > 1)
            )
        depth = self.encoder_depth
        if depth is not None and (not isinstance(depth, Integral) or depth < 1):
            raise ValueError(f"PPOAgent(encoder_depth={depth}) must be None or a whole number, at least 1")
        if self.compute_dtype not in COMPUTE_DTYPES:
            raise ValueError(f"PPOAgent(compute_dtype={self.compute_dtype!r}) is unknown; use 'float32' or 'bfloat16'")
        if self.matmul_precision not in PRECISIONS:
            raise ValueError(
                f"PPOAgent(matmul_precision={self.matmul_precision!r}) is unknown; use {', '.join(PRECISIONS)}"
            )

    def check_env(self, env: Any) -> None:
        """Raise ValueError where the encoder has no window of bars to read."""
        window = env.window if hasattr(env, "advance") else 1
        if self.encoder != "mlp" and window == 1:
            raise ValueError(
                f"encoder {self.encoder!r} needs a window of bars, and {env.name} shows one at a time; use a "
                "TradingEnv with a window of 2 or more, such as 32, or the encoder 'mlp'"
            )

    # --- acting ---

    def init(self, key: PRNGKeyArray, env: Any, params: Any) -> PPOState:
        """Fresh parameters for the environment's observations and actions.

        Raises ValueError where the observation is no array, the actions are neither discrete nor a bounded box, or the
        encoder has no window to read.
        """
        self.check_env(env)
        network, bounds, obs_shape = self._network(key, env, params)
        weights = network.fresh(key)
        if network.actions.continuous:
            first, _ = self._log_std(network)
            weights["log_std"] = jnp.full_like(weights["log_std"], log_std_parameter(first))
        return PPOState(
            params=weights,
            opt_state=self._optimizer().init(weights),
            learning_rate=jnp.asarray(self.learning_rate, jnp.float32),
            value_scale=ValueScale(*jnp.zeros((3,), jnp.float32)),
            normalizer=None
            if obs_shape is None or not self.normalize_observations
            else RunningNormalizer.fresh(obs_shape),
            network=network,
            obs_ndim=1 if obs_shape is None else len(obs_shape),
            bounds=bounds,
            every=getattr(env, "decision_every", 1),
        )

    def prepare(self, state: PPOState, env_params: Any) -> tuple[PPOState, Any]:
        """Normalise the tape once: with the stored numbers, or those of this tape's segments if there are none yet.

        On the host, before anything is traced; the mean and deviation are taken in float64 over each segment's bars,
        from the first whose features are known. Ordinary environments pass through unchanged.

        Raises ValueError where the actions are a box without finite bounds (`init` under jit cannot see them).
        """
        check_bounds(state.bounds)
        if not hasattr(env_params, "tape"):
            return state, env_params
        normalizer = state.normalizer
        if normalizer is None:
            normalizer = fit_normalizer(env_params.tape)
            state = state.replace(normalizer=normalizer)
        return state, env_params.replace(tape=normalize(normalizer, env_params.tape))

    def encode(self, state: PPOState, chunk: Float[Array, "*b bars assets F"]) -> Float[Array, "*b decisions context"]:
        """Contexts of all decisions in chunks of prepared bars, some chunks at a time (see `encoders.blocks`)."""
        network, lanes = state.network, chunk.reshape(-1, *chunk.shape[-3:])
        count = encoders.blocks(len(lanes), _held(network, chunk.shape[-3:]))
        part = lambda x: self._apply(network, state.params, "encode", x)  # noqa: E731
        if count == 1:
            return part(chunk)
        contexts = jax.lax.map(part, lanes.reshape(count, -1, *lanes.shape[1:]))
        return contexts.reshape(*chunk.shape[:-3], *contexts.shape[2:])

    def act(
        self, state: PPOState, context: Array, account: Array | None, key: PRNGKeyArray, deterministic: bool = False
    ) -> tuple[Array, dict[str, Array]]:
        """Actions by draw, or by the mode; with `log_prob` and `value`. `context` broadcasts against `account`."""
        policy, value = self._head(state, state.params, context, account)
        mean, std = state.value_scale.moments()
        action: Any = policy.mode() if deterministic else policy.sample(key)
        return state.network.actions.to_env(action), {"log_prob": policy.log_prob(action), "value": mean + std * value}

    def select_action(
        self, state: PPOState, obs: Any, key: PRNGKeyArray, deterministic: bool = False
    ) -> tuple[Array, dict[str, Array]]:
        """Actions for observations `[*b]`: of a prepared TradingEnv, or arrays of an ordinary environment."""
        if isinstance(obs, Observation):
            return self.act(state, self.encode(state, obs.window)[..., 0, :], obs.account, key, deterministic)
        batch = obs.shape[: obs.ndim - state.obs_ndim]
        if isinstance(state.normalizer, RunningNormalizer):
            obs = state.normalizer(obs)
        context = self.encode(state, obs.reshape(*batch, 1, 1, state.network.features))[..., 0, :]
        return self.act(state, context, None, key, deterministic)

    # --- learning ---

    def anneal(self, state: PPOState, progress: Float[Array, ""]) -> PPOState:
        """What is led as `progress` goes from 0 to 1: a linear rate to 0, an unlearnt deviation to its last."""
        left = jnp.maximum(1 - progress, 0)
        if self.schedule == "linear":
            state = state.replace(learning_rate=self.learning_rate * left)
        first, last = self._log_std(state.network)
        if last is None:
            return state
        led = jnp.full_like(state.params["log_std"], log_std_parameter(last + (first - last) * left))
        return state.replace(params={**state.params, "log_std": led})

    def _log_std(self, network: ActorCritic) -> tuple[Any, Any]:
        """The first logarithm of the deviation and the last; None for the last where it is learnt, or there is none."""
        first, last = LOG_STD.get(network.actions.kind, (0.0, None))
        if self.log_std_init is None and self.log_std_final is None:
            return first, last
        given = first if self.log_std_init is None else self.log_std_init
        return given, self.log_std_final if network.actions.continuous else None

    def learn(
        self, state: PPOState, rollout: Rollout, params: Any, key: PRNGKeyArray
    ) -> tuple[PPOState, dict[str, Array]]:
        """One update: `num_epochs` passes of `num_minibatches` gradient steps over a rollout.

        Args:
            state: as it acted in the rollout.
            rollout: time-major; its number of lanes must be a multiple of `num_minibatches`.
            params: the environment's prepared parameters, whose tape holds the bars of the lanes.
            key: for the permutations; on several devices each has its own lanes and key.

        Returns:
            The new state and scalar metrics, means over all gradient steps.
        """
        lanes = rollout.reward.shape[1]
        if lanes % self.num_minibatches:
            raise ValueError(f"num_minibatches {self.num_minibatches} does not divide the {lanes} lanes")
        done = rollout.terminated | rollout.truncated
        advantage, target = gae(
            rollout.reward, rollout.value, rollout.next_value, rollout.terminated, done, self.gamma, self.gae_lambda
        )
        state = state.replace(value_scale=state.value_scale.update(target))
        mean, std = state.value_scale.moments()
        _, spread = devices.moments(target)
        _, unexplained = devices.moments(target - rollout.value)
        explained = 1 - unexplained / jnp.where(spread > 0, spread, 1)
        if rollout.cursor is not None and self.market_baseline and state.network.actions.continuous:
            advantage = less_explained(advantage, self._market_part(state, rollout, params))
        centre, variance = devices.moments(advantage)
        # Frozen until the update is over: what acted and what learns must see the same numbers.
        observations, normalizer = rollout.observations, state.normalizer
        if isinstance(normalizer, RunningNormalizer):
            observations, normalizer = normalizer(observations), normalizer.update(observations)
        data = {
            "action": state.network.actions.from_env(rollout.action),
            "log_prob": rollout.log_prob,
            "advantage": (advantage - centre) / (jnp.sqrt(variance) + 1e-8),
            "target": (target - mean) / std,
            "account": rollout.account,
            "observations": observations,
        }
        # Lane-major from here on: a minibatch is then a gather of contiguous rows.
        data = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), data)
        data["cursor"] = rollout.cursor

        def minibatch(carry: tuple[Any, Any], rows: Array) -> tuple[tuple[Any, Any], dict[str, Array]]:
            return self._descend(state, carry, jax.tree.map(lambda x: x[rows], data), params)

        def epoch(carry: tuple[Any, Any], epoch_key: Array) -> tuple[tuple[Any, Any], dict[str, Array]]:
            rows = jax.random.permutation(epoch_key, lanes).reshape(self.num_minibatches, -1)
            return jax.lax.scan(minibatch, carry, rows)

        start = (state.params, state.opt_state)
        (weights, opt_state), steps = jax.lax.scan(epoch, start, jax.random.split(key, self.num_epochs))
        metrics = {
            **jax.tree.map(jnp.mean, steps),
            "explained_variance": explained,
            "learning_rate": state.learning_rate,
        }
        state = state.replace(params=weights, opt_state=opt_state, normalizer=normalizer)
        return state, metrics

    def _market_part(self, state: PPOState, rollout: Rollout, params: Any) -> Float[Array, "time lane agent"]:
        """What the market did to each advantage: the trace of log returns of the position that it alone would suggest.

        That is the mode's, decided from the rollout's mean account at each bar and within the leverage. The bars do not
        mind what an agent does, so an advantage less a multiple of this has the same gradient in expectation and less
        of the market's noise, which is most of it (an input-dependent baseline: Mao et al. 2019,
        https://arxiv.org/abs/1807.02264; exact but for the mean account and the multiple, which are of the same
        rollout: one part in its number of steps). Without it the noise of the gradient grows as the deviation of the
        actions falls.
        """
        network, tape = state.network, params.tape
        assert rollout.cursor is not None
        assert rollout.account is not None
        decisions, lanes, _, assets, _ = rollout.account.shape
        mean = devices.mean(rollout.account.mean((0, 1, 2)))[..., : network.account]
        # What follows the account's own numbers says which assets are there (`PortfolioActorCritic.tradable`).
        there = jnp.moveaxis(rollout.account[:, :, :1, :, network.account :], 1, 0)

        def suggested(part: tuple[Array, Array]) -> Float[Array, "lane time A"]:
            cursor, there = part
            made = contexts(partial(self.encode, state), tape, cursor, network.window, decisions, state.every)
            account = jnp.concatenate([jnp.broadcast_to(mean, (*there.shape[:-1], len(mean[0]))), there], -1)
            policy, _ = self._head(state, state.params, made[:, :, None], account)
            return policy.mode()[:, :, 0]

        # The head's own numbers, and the encoder's before them, of some lanes at a time.
        held = _held(network, (network.window + decisions - 1, *tape.features.shape[1:]))
        count = encoders.blocks(lanes, held + decisions * assets * sum(self.hidden) * 2)
        parts = jax.tree.map(lambda x: x.reshape(count, lanes // count, *x.shape[1:]), (rollout.cursor, there))
        position = jax.lax.map(suggested, parts).reshape(lanes, decisions, -1)
        if state.bounds is not None:  # the ledger's cap on all together
            position /= jnp.maximum(jnp.abs(position).sum(-1, keepdims=True) / state.bounds[1], 1)
        close = tape.close[rollout.cursor[:, None] + jnp.arange(decisions + 1) * state.every]
        moved = (position * (close[:, 1:] / close[:, :-1] - 1)).sum(-1)
        earned = jnp.broadcast_to(jnp.log(jnp.maximum(1 + moved, 0.1)).T[..., None], rollout.reward.shape)
        nothing = jnp.zeros_like(earned)
        return gae(earned, nothing, nothing, rollout.truncated, rollout.truncated, self.gamma, self.gae_lambda)[0]

    def _descend(
        self, state: PPOState, carry: tuple[Any, Any], batch: dict[str, Any], params: Any
    ) -> tuple[tuple[Any, Any], dict[str, Array]]:
        """One gradient step on a minibatch of lanes, of each device's own."""
        weights, opt_state = carry
        grads, metrics = devices.mean(self._gradient(weights, state, batch, params))
        direction, opt_state = self._optimizer().update(grads, opt_state, weights)
        step = jax.tree.map(lambda d: -state.learning_rate * d, direction)
        return (optax.apply_updates(weights, step), opt_state), {**metrics, "grad_norm": optax.tree.norm(grads)}

    def _gradient(self, weights: Any, state: PPOState, batch: dict[str, Any], params: Any) -> tuple[Any, Any]:
        """The gradient of the loss on a minibatch and its metrics: means over equal blocks of lanes, one at a time."""
        gradient = jax.grad(self._loss, has_aux=True)
        lanes, decisions, agents = batch["log_prob"].shape
        chunk = jax.eval_shape(lambda: self._inputs(state, batch, params)[0])
        heads = decisions * agents * sum(self.hidden) * 2
        size = sum(leaf.size for leaf in jax.tree.leaves(weights))
        count = encoders.blocks(lanes, _held(state.network, chunk.shape[1:]) + heads, size)
        if count == 1:
            return gradient(weights, state, batch, params)
        parts = jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), batch)
        one = lambda part: gradient(weights, state, part, params)  # noqa: E731
        zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(one, jax.tree.map(lambda x: x[0], parts)))
        sums, _ = jax.lax.scan(lambda sums, part: (jax.tree.map(jnp.add, sums, one(part)), None), zeros, parts)
        return jax.tree.map(lambda x: x / count, sums)

    def _loss(self, weights: Any, state: PPOState, batch: dict[str, Any], params: Any) -> tuple[Array, Any]:
        """PPO's loss on a minibatch `[lane, time, agent]`; of the state, what is not learnt here."""
        network = state.network
        chunk, account = self._inputs(state, batch, params)
        context = self._apply(network, weights, "encode", chunk)
        policy, value = self._head(
            state, weights, context.reshape(*batch["log_prob"].shape[:2], 1, context.shape[-1]), account
        )

        log_ratio = policy.log_prob(batch["action"]) - batch["log_prob"]
        ratio = jnp.exp(log_ratio)
        bounded = jnp.clip(ratio, 1 - self.clip_range, 1 + self.clip_range)
        policy_loss = -jnp.minimum(ratio * batch["advantage"], bounded * batch["advantage"]).mean()
        value_loss = 0.5 * ((value - batch["target"]) ** 2).mean()
        entropy = policy.entropy().mean()
        loss = policy_loss + self.value_coef * value_loss
        if self.entropy_coef is not None:
            loss = loss - self.entropy_coef * entropy
        elif not network.actions.continuous:
            loss = loss - ENTROPY_COEF * entropy
        return loss, {
            "loss": loss,
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "entropy": entropy,
            "approx_kl": (ratio - 1 - log_ratio).mean(),  # Schulman's k3, http://joschu.net/blog/kl-approx.html
            "clip_fraction": (jnp.abs(ratio - 1) > self.clip_range).mean(),
        }

    def _inputs(self, state: PPOState, batch: dict[str, Any], params: Any) -> tuple[Array, Array | None]:
        """What a minibatch's decisions saw: the chunk of bars of each lane, and the account."""
        if batch["observations"] is None:
            decisions = batch["log_prob"].shape[1]
            chunk = chunks(params.tape, batch["cursor"], state.network.window, decisions, state.every)
            return chunk, batch["account"]
        observations = batch["observations"]  # each is a window of one bar, so that time is the chunk's axis
        return observations.reshape(*observations.shape[:2], 1, state.network.features), None

    def _optimizer(self) -> optax.GradientTransformation:
        """Global-norm clip and Adam's direction; the rate lives in the state."""
        return optax.chain(optax.clip_by_global_norm(self.max_grad_norm), optax.scale_by_adam(eps=1e-5))

    def _head(self, state: PPOState, weights: Any, context: Array, account: Any) -> tuple[Distribution, Array]:
        network = state.network
        outputs, value = self._apply(network, weights, "head", context, account)
        free = network.tradable(account)
        log_std = weights.get("log_std")
        if self._log_std(network)[1] is not None:
            log_std = jax.lax.stop_gradient(log_std)
        return network.actions.distribution(outputs, log_std, state.bounds, free), value

    def _apply(self, network: ActorCritic, weights: Any, method: str, *inputs: Any) -> Any:
        """A method of the network, its matrix products and their gradients in the agent's precision."""
        with jax.default_matmul_precision(self.matmul_precision):
            return network.apply({"params": weights}, *inputs, method=method)

    def _network(
        self, key: PRNGKeyArray, env: Any, params: Any
    ) -> tuple[ActorCritic, Bounds | None, tuple[int, ...] | None]:
        """The network that fits the environment, the bounds of its actions, and an ordinary observation's shape."""
        window, assets, account, obs_shape = 1, 1, 0, None
        actions, bounds = actions_of(env, params)
        if hasattr(env, "advance"):
            window, assets, features = env.window, *params.tape.features.shape[1:]
            account = len(env.account_names)
        else:
            obs, _ = jax.eval_shape(env.reset, key, params)
            if not isinstance(obs, jax.ShapeDtypeStruct):
                raise ValueError(
                    f"PPOAgent needs an array as observation, {env.name} has {type(obs).__name__}; flatten it"
                )
            features, obs_shape = math.prod(obs.shape), obs.shape
        network = (PortfolioActorCritic if assets > 1 else ActorCritic)(
            window,
            features,
            account,
            actions,
            tuple(self.hidden),
            self.activation,
            self.shared,
            self.encoder,
            self.encoder_width,
            self.encoder_depth,
            self.compute_dtype,
        )
        return network, bounds, obs_shape

    # --- on disk ---

    def save_model(self, path: str | PathLike[str], state: PPOState, about: dict[str, Any]) -> None:
        """Write parameters, network, normalisation and `about` (environment and features) to a policy file."""
        save(path, state, about)

    def load_model(self, path: str | PathLike[str]) -> tuple[PPOState, dict[str, Any]]:
        """A state to act with, and `about`. Raises files.FileError where the file is not a policy of this agent."""
        return load(path)


def _held(network: ActorCritic, chunk: tuple[int, ...]) -> int:
    """Numbers that the encoder holds of a lane's chunk `[..., bars, assets, features]`."""
    kind, width, depth = network.encoder, network.encoder_width, network.encoder_depth
    decisions = chunk[-3] - network.window + 1
    return math.prod(chunk[:-3]) * encoders.held(kind, network.window, network.features, width, depth, decisions)
