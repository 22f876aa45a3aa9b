"""The settings of PPO. It needs no JAX: the command line derives its flags and their help from here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Schedule = Literal["constant", "linear"]
Encoder = Literal["mlp", "tcn", "attention", "gru", "lru"]
ComputeDtype = Literal["float32", "bfloat16"]
Precision = Literal["default", "high", "highest"]


def static(default: Any) -> Any:
    """Return a field that is structure and not a leaf of the agent's pytree. Another value compiles anew."""
    return field(default=default, metadata={"pytree_node": False})


@dataclass(frozen=True, kw_only=True)
class PPOSettings:
    """The settings of PPO. Floats are leaves of the agent's pytree, so vmap can sweep them. The rest is structure.

    Attributes:
        learning_rate: The step size of Adam at the start of training.
        gamma: The discount of a reward for each step that it is away.
        gae_lambda: The decay of generalised advantage estimation for each step.
        clip_range: The distance from 1 at which the ratio of action probabilities is clipped.
        entropy_coef: The weight of the entropy bonus in the loss. By default it is 0.01 for discrete actions and 0 for
            continuous ones, whose deviation a bonus would keep large.
        value_coef: The weight of the value loss. It matters where actor and critic share an encoder.
        log_std_init: The logarithm of the standard deviation of continuous actions at the start, in halves of the
            action's range. For weights it is that of their log ratios. Given without log_std_final, it is learnt from
            there. By default exposures go from 0 to -1.75 over the run, and weights are learnt from 0.
        log_std_final: The same logarithm at the end of the run. The schedule between the two is linear.
        max_grad_norm: The global norm at which gradients are clipped.
        num_epochs: The number of passes over each rollout.
        num_minibatches: The number of parts of each pass. It divides the number of market paths.
        schedule: The schedule of the learning rate. "linear" decays it to 0 over the run.
        hidden: The widths of the hidden layers of actor and critic.
        market_baseline: Whether the part of an advantage that the market alone explains is subtracted. It applies to
            continuous actions on market paths.
        normalize_observations: Whether observations of ordinary environments are scaled by their running mean and
            deviation. Market features are always scaled, by the mean and deviation of the training bars.
        encoder: The network that reads the window. "mlp" reads all of it at once, "tcn" is a stack of dilated causal
            convolutions, and "attention" is causal and local. "gru" reads the window bar by bar, and "lru" is a stack
            of linear recurrences. In Python it may also be a Flax module of your own, see `OwnEncoder`.
        encoder_width: The number of channels of the encoder. Attention needs a multiple of 16, and mlp has none.
        encoder_depth: The number of layers of the encoder. By default tcn has as many as it needs to see the window,
            gru has 1, and attention and lru have 2.
        network: A Flax module of your own as the whole network, in the place of encoder and hidden layers, see
            `OwnActorCritic`, and `OwnPortfolio` for several assets. On the command line it is FILE.py:CLASS, and that
            file is run. A module that takes bars alone is an encoder there.
        compute_dtype: The number format of encoder and hidden layers. "bfloat16" pays on accelerators only. Weights,
            outputs and money stay in float32.
        matmul_precision: The precision of float32 products. "highest" is float32. "high" and "default" let an
            accelerator round their inputs to be faster. It makes no difference on a CPU.
    """

    learning_rate: float = 1e-3
    gamma: float = 0.99
    gae_lambda: float = 0.95
    clip_range: float = 0.2
    entropy_coef: float | None = None
    value_coef: float = 0.5
    log_std_init: float | None = None
    log_std_final: float | None = None
    max_grad_norm: float = 0.5
    num_epochs: int = static(4)
    num_minibatches: int = static(4)
    schedule: Schedule = static("linear")  # noqa: RUF009
    hidden: tuple[int, ...] = static((64, 64))
    market_baseline: bool = static(True)
    normalize_observations: bool = static(False)
    encoder: Encoder | Any = static("mlp")  # noqa: RUF009  a flax.linen.Module, which this module does not import
    encoder_width: int = static(32)
    encoder_depth: int | None = static(None)
    network: str | Any = static(None)  # noqa: RUF009
    compute_dtype: ComputeDtype = static("float32")  # noqa: RUF009
    matmul_precision: Precision = static("highest")  # noqa: RUF009
