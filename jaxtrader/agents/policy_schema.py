"""The schema of a policy file: what each of its fields may be. `policy_file.py` writes and reads the file.

The classes are checked by `schema.parse`. Those of settings have the ranges of the settings, since parsing makes them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from jaxtrader import files
from jaxtrader.agents import action_spec, ppo_settings
from jaxtrader.agents.networks import MAX_LAYERS
from jaxtrader.envs.env_settings import MAX_WINDOW, EnvSettings
from jaxtrader.ledger.rules import Rules
from jaxtrader.market.delistings import DELISTED_AFTER
from jaxtrader.schema import Array, Count, Length, Natural, Range

AGENT = "PPOAgent"
ENSEMBLE = "Ensemble"
VERSION = 3
OWN = "OwnAgent"
OWN_VERSION = 1
MAX_MEMBERS = 256  # of an ensemble
Float32 = Annotated[np.ndarray, Array("float32")]
Scalar = Annotated[np.ndarray, Array("float32", 0)]
Vector = Annotated[np.ndarray, Array("float32", 1)]
ABSENT: Any = None  # the default of a field that may be missing, but is never None


@dataclass(frozen=True, kw_only=True)
class OwnPart:
    """A Flax module of the user's own: the name of its class, and its fields that are plain data."""

    name: str
    settings: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class NetworkPart:
    """The network: `kind`, a name in NETWORKS, and the fields of `ActorCritic`, whose ranges are those of its settings.

    `module` is of the kinds "own" and "own portfolio" alone.
    """

    kind: Literal["single", "portfolio", "own", "own portfolio"]
    window: Annotated[int, Range(1, MAX_WINDOW)]
    features: Count
    account: Annotated[int, Range(0, 1000)]
    hidden: Annotated[tuple[int, ...], Length(MAX_LAYERS)]
    encoder: ppo_settings.Encoder | OwnPart
    encoder_width: int
    encoder_depth: int | None
    compute_dtype: str
    module: OwnPart | None = None


@dataclass(frozen=True, kw_only=True)
class ActionsPart:
    """The actions: `kind`, `size` and `shape` of `ActionSpec`, what the outputs stand for, and the bounds of a box."""

    kind: action_spec.Kind
    size: Count
    shape: Annotated[tuple[Natural, ...], Length(files.MAX_AXES)]
    distribution: str
    bounds: tuple[Float32, Float32] | None


@dataclass(frozen=True, kw_only=True)
class ScalePart:
    """The fields of `ValueScale`."""

    mean: Scalar
    square: Scalar
    weight: Scalar


@dataclass(frozen=True, kw_only=True)
class MarketScalePart:
    """The fields of `Normalizer`."""

    mean: Vector
    std: Vector


@dataclass(frozen=True, kw_only=True)
class ObservationScalePart:
    """The fields of `RunningNormalizer`."""

    mean: Float32
    variance: Float32
    count: Scalar


@dataclass(frozen=True, kw_only=True)
class PolicyFile:
    """What a policy file holds.

    Attributes:
        agent: AGENT.
        version: VERSION of this schema. A file without a version is of version 1.
        network, actions: see their classes.
        obs_ndim: see `PPOState`.
        params: the weights as nested dicts of float32 arrays.
        normalizer: None where there is neither.
        value_scale: the units in which the critic works.
        about: what the policy was trained on, see `About`.
    """

    agent: Literal["PPOAgent"]
    version: Literal[3]
    network: NetworkPart
    actions: ActionsPart
    obs_ndim: Annotated[int, Range(0, files.MAX_AXES)]
    params: dict[str, Any]
    normalizer: MarketScalePart | ObservationScalePart | None
    value_scale: ScalePart
    about: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class EnsembleFile:
    """What the file of an ensemble holds: a `PolicyFile` for each member, whose own `about` is empty."""

    agent: Literal["Ensemble"]
    version: Literal[3]
    members: Annotated[list[dict[str, Any]], Length(MAX_MEMBERS)]
    about: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class OwnAgentFile:
    """What the file of an agent of the user's own holds.

    Attributes:
        agent: OWN.
        version: OWN_VERSION of this schema.
        name: the name of the agent's class.
        state: the state of the agent, as plain containers and arrays. The agent's `init` says which ones.
        members: such a state for each member of an ensemble, in its place.
        about: what the policy was trained on, see `About`.
    """

    agent: Literal["OwnAgent"]
    version: Literal[1]
    name: str
    state: Any = None
    members: Annotated[list[Any], Length(MAX_MEMBERS)] | None = None
    about: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class FeaturesPart:
    """What a decision sees: the names of the features, the bars that they look back, and `Market.delisted_after`."""

    names: list[str]
    lookback: Count
    delisted_after: Annotated[float, Range(0)] = DELISTED_AFTER


@dataclass(frozen=True, kw_only=True)
class RewardPart:
    """What `rewards.to_dict` writes: the name, and the settings of a reward of this package.

    Of a reward of the user's own it writes the name, and what decisions see of it.
    """

    FURTHER: ClassVar[bool] = True

    name: str
    custom: bool = False
    observed: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class EnvPart(EnvSettings):
    """What `TradingEnv.to_dict` writes. Its costs are checked by their own class. `sees_best_price` may be missing."""

    rules: Rules
    costs: dict[str, Any]
    reward: RewardPart
    sees_best_price: bool = False


@dataclass(frozen=True, kw_only=True)
class About:
    """What a policy says of its training. The Trainer writes all of it but `seeds`, `command` and `init_from`.

    Attributes:
        env: the environment. It is missing where that is no `TradingEnv`.
        features: those of the environment's market.
        agent: its `name` and its settings. Those of PPO are checked.
        symbols: see `Policy.symbols`.
        data: one line on each part of the data.
        training: the `TrainSettings`.
        updates: the number of updates after which the policy was chosen.
        valid_reward_per_bar: the score on validation for which it was chosen.
        seeds: those of an ensemble's members.
        command: what `jaxtrader train` was asked for, which that command checks.
        init_from: the `About` of the policy from which the training started.
        holds_because: why it holds one exposure instead of what was trained.
    """

    FURTHER: ClassVar[bool] = True

    env: EnvPart = ABSENT
    features: FeaturesPart = ABSENT
    agent: dict[str, Any] = field(default_factory=dict)
    symbols: tuple[str, ...] = ()
    data: dict[str, str] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    updates: Natural = 0
    valid_reward_per_bar: float | None = None
    seeds: tuple[int, ...] = ()
    command: dict[str, Any] = ABSENT
    init_from: dict[str, Any] = ABSENT
    holds_because: str = ABSENT
