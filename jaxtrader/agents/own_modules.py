"""Flax modules of the user's own: as the encoder of a network, or as the whole of it."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from jaxtrader import compilation
from jaxtrader.agents.encoders import windows_of
from jaxtrader.agents.networks import ActorCritic, PortfolioActorCritic
from jaxtrader.printable import shown

MOST_SHOWN = 300  # characters of a message that the user's code raised
SAME = 1e-3  # of the size of the outputs: by so much float32 may differ between a chunk and its windows
ROWS = ((0, 1, 2), (0, 3, 1))  # of four decisions: twice three, in which two have other neighbours


@dataclass(frozen=True)
class Own:
    """A Flax module of the user's own, kept apart from the network's layers until they are declared.

    Attributes:
        module: a linen module, which must be hashable: its fields are numbers, text, tuples and functions.
    """

    module: nn.Module

    @property
    def name(self) -> str:
        """The name of its class."""
        return type(self.module).__name__

    @property
    def settings(self) -> dict[str, Any]:
        """Its fields that are plain data."""
        names = [field.name for field in dataclasses.fields(self.module) if field.name not in ("parent", "name")]
        values = {name: getattr(self.module, name) for name in names}
        return {name: list(x) if isinstance(x, tuple) else x for name, x in values.items() if _is_plain(x)}

    @property
    def plain(self) -> dict[str, Any]:
        """The name of its class and those fields, as files hold them."""
        return {"name": self.name, "settings": self.settings}

    def reading(self, window: int) -> OwnEncoder:
        """Return the module as the encoder of windows of so many bars."""
        return OwnEncoder(window, self)

    def __repr__(self) -> str:
        return self.name


class NotGiven(LookupError):
    """A policy is of a network of the user's own, whose class was not given. The message names it, and the way out."""


# By the name of its class, each module that the user has given in this process. Policies that are read name one.
_GIVEN: dict[str, Any] = {}


def own(module: Any) -> Own:
    """Return the holder of a user's module. A policy file that names its class finds it from now on.

    Raises ValueError where it is no Flax linen module, or cannot be hashed.
    """
    if isinstance(module, Own):
        return module
    if inspect.isclass(module) and issubclass(module, nn.Module):
        raise ValueError(f"{module.__name__} is a class; give a module, as `{module.__name__}(...)`")
    if not isinstance(module, nn.Module):
        raise ValueError(f"{type(module).__name__} is no Flax linen module; derive it from flax.linen.Module")
    try:
        hash(module)
    except TypeError as error:
        raise ValueError(
            f"{type(module).__name__} has a field that cannot be hashed ({error}); use tuples, not lists or arrays"
        ) from error
    _GIVEN[type(module).__name__] = module
    return Own(module)


def named(name: str, settings: dict[str, Any], given: Any = None) -> Own:
    """Return the user's module of which a policy file has the class's name and the fields that are plain data.

    No code is looked for: the class is the one that was given now, or earlier in this process.

    Args:
        name: the name of the class.
        settings: its fields, as `Own.settings` returned them.
        given: the class, or a module of it. None: it was given earlier.

    Raises NotGiven where no such class was given, or it does not take these settings.
    """
    module = _GIVEN.get(name) if given is None else given
    found = module if inspect.isclass(module) else type(module)
    if module is None or found.__name__ != name:
        fields = f" ({', '.join(f'{key}: {value!r}' for key, value in settings.items())})" if settings else ""
        other = "" if given is None else f", and no {found.__name__}"
        raise NotGiven(
            f"its network is a {name}{fields}{other}, which is code that no file holds; give that class: "
            f"`load_policy(path, {name})`, or `--network FILE.py:{name}` of the command"
        )
    if not inspect.isclass(module) and (given is not None or own(module).settings == settings):
        return own(module)
    try:
        return own(found(**{key: tuple(x) if isinstance(x, list) else x for key, x in settings.items()}))
    except TypeError as error:
        raise NotGiven(f"this {name} does not take the settings of the file ({error}); give a module of it") from error


class OwnEncoder(nn.Module):
    """An encoder of the user's own.

    Attributes:
        window: bars that an output depends on.
        holder: the holder of the user's module, which maps windows `[*b, window, inputs]` to `[*b, width]`. Where its
            class has `reads_chunks = True`, it maps chunks `[*b, bars, inputs]` to `[*b, bars - window + 1, width]`,
            and shares work between decisions.
    """

    window: int
    holder: Own

    def setup(self) -> None:
        """Declare the module."""
        self.own = self.module.clone()

    @property
    def module(self) -> nn.Module:
        """The user's module, without weights."""
        return self.holder.module

    @nn.nowrap
    def output_width(self, inputs: int) -> int:
        """Return how many numbers it gives for a decision."""
        return _shape(self.module, self.window, inputs, 1)[0].shape[-1]

    @nn.nowrap
    def activation_count(self, inputs: int, decisions: int) -> int:
        """Return how many numbers its operations give for one path of so many decisions."""
        return _shape(self.module, self.window, inputs, decisions)[1]

    def __call__(self, bars: Float[Array, "*b bars inputs"]) -> Float[Array, "*b decisions width"]:
        """Return the module's outputs for the windows of each chunk."""
        return self.own(_seen(self.module, bars, self.window))

    @nn.nowrap
    def check(self, inputs: int) -> None:
        """Raise ValueError where the module's output has another shape, is not finite, or sees bars outside its window.

        It is called on random bars and weights. A check that passed is not made again.
        """
        self._check(inputs)

    @nn.nowrap
    @functools.lru_cache(maxsize=64)  # noqa: B019
    def _check(self, inputs: int) -> None:
        name = type(self.module).__name__
        # Flat axes of a batch, and bars enough that a window has neighbours.
        chunk = np.random.default_rng(0).normal(size=(2, self.window + 6, inputs)).astype(np.float32)
        decisions = chunk.shape[1] - self.window + 1
        windows = np.stack([chunk[:, i : i + self.window] for i in range(decisions)], 1)
        each = windows.reshape(-1, self.window, inputs)
        whole, each = (chunk, each) if reads_chunks(self.module) else (windows, each[:, None])
        weights = fresh_weights(self.module, "encode bars", whole)
        whole, each = called(self.module, "encode bars", weights, (whole,), (each,))
        if getattr(whole, "shape", ())[:-1] != (2, decisions) or getattr(each, "size", 0) != whole.size:
            takes, gives = (
                ("chunks", "[*b, bars - window + 1, width]")
                if reads_chunks(self.module)
                else (
                    "windows",
                    "[*b, width]",
                )
            )
            raise ValueError(
                f"{name} gives the shape {getattr(whole, 'shape', type(whole).__name__)} for {takes} of 2 paths with "
                f"{decisions} decisions; it must give {gives}"
            )
        each = each.reshape(whole.shape)
        check_numbers(name, whole)
        difference = float(np.abs(whole - each).max())
        if difference > SAME * (1 + float(np.abs(each).max())):
            raise ValueError(
                f"{name} encodes a chunk differently than its windows one by one (by {difference:.2g}), so it sees "
                f"bars outside of the window of {self.window}; let each decision depend on its own window alone"
            )


class OwnActorCritic(ActorCritic):
    """An actor and a critic that are one module of the user's own.

    The module is called as `module(window, account)` and returns `(outputs, value)`, each row from its own inputs:

    - `window`: `[n, window, features]` float32, normalised, oldest bar first. In an ordinary environment it is the
      observation, with a window of 1.
    - `account`: `[n, K]` float32, in the order of `TradingEnv.account_names`. K is 0 in an ordinary environment.
    - `outputs`: `[n, actions]`: logits of positions, or the mean of continuous positions.
    - `value`: `[n]`.

    A portfolio has an axis of assets, see `OwnPortfolio`. The windows of a path are copied for each of its accounts. An
    encoder of one's own does not need that. All that is kept of the module is its weights, in float32.

    Attributes:
        module: the holder of the user's module. The settings of layers and encoders mean nothing beside it.
    """

    module: Own | None = None

    @property
    def _of_user(self) -> nn.Module:
        assert self.module is not None
        return self.module.module

    def setup(self) -> None:
        """Declare the module, and the deviation of continuous actions."""
        self.own = self._of_user.clone()
        if self.actions.continuous:
            self.log_std = self.param("log_std", nn.initializers.zeros, (self.outputs,))

    @property
    def axes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The axes of one decision's window, and of its account."""
        return (self.window, self.features), (self.account,)

    def encode(self, chunk: Float[Array, "*b bars assets features"]) -> Float[Array, "*b decisions context"]:
        """Return the windows that end at bars window-1, window, ... of each chunk, each as one row of numbers."""
        windows = windows_of(chunk.reshape(*chunk.shape[:-2], -1), self.window)
        return windows.reshape(*windows.shape[:-2], -1)

    def head(
        self, context: Float[Array, "*b context"], account: Float[Array, "*c assets K"] | None
    ) -> tuple[Float[Array, "*c actions"], Float[Array, "*c"]]:
        """Return the policy's outputs and the value. The context broadcasts against the account's leading axes."""
        seen = jnp.zeros((*context.shape[:-1], 0), jnp.float32) if account is None else self.account_row(account)
        batch = jnp.broadcast_shapes(context.shape[:-1], seen.shape[:-1])
        inputs = [
            jnp.broadcast_to(x, (*batch, x.shape[-1])).reshape(math.prod(batch), *axes)  # an axis may be of length 0
            for x, axes in zip((context, seen), self.axes, strict=True)
        ]
        outputs, value = (x.astype(jnp.float32) for x in self.own(*inputs))
        return outputs.reshape(*batch, self.actions.size), value.reshape(batch)

    @nn.nowrap
    def account_row(self, account: Float[Array, "*c assets K"]) -> Float[Array, "*c row"]:
        """Return the numbers of an account as one row."""
        return account.reshape(*account.shape[:-2], -1)

    @nn.nowrap
    def constant(self, weights: Any, outputs: Array) -> Any:
        """Raise ValueError: nobody knows the module's last layer."""
        raise ValueError("a network of one's own cannot be made to hold, since its last layer is unknown")

    @nn.nowrap
    def head_activations(self, decisions: int) -> int:
        """Return how many numbers the module's inputs and operations have for so many decisions."""
        inputs = self._inputs(1)
        return decisions * (operations(self._of_user, inputs) + sum(x.size for x in inputs))

    @nn.nowrap
    def _inputs(self, count: int) -> tuple[Array, ...]:
        return tuple(jnp.zeros((count, *axes), jnp.float32) for axes in self.axes)

    @nn.nowrap
    def check(self) -> None:
        """Raise ValueError where the module does not give outputs and values of these shapes, or none that are finite.

        Also where a row of them depends on other rows, which are other bars, or the module needs more than weights. It
        is called twice, on random windows and weights. A check that passed is not made again.
        """
        self._check()

    @nn.nowrap
    @functools.lru_cache(maxsize=64)  # noqa: B019
    def _check(self) -> None:
        assert self.module is not None
        name, rng = self.module.name, np.random.default_rng(0)
        every = [rng.normal(size=(4, *axes)).astype(np.float32) for axes in self.axes]
        first, second = ([x[list(rows)] for x in every] for rows in ROWS)
        window, account = (", ".join(map(str, ("n", *axes))) for axes in self.axes)
        attempt = f"be called with a window [{window}] and an account [{account}]"
        weights = fresh_weights(self._of_user, attempt, *(x[:1] for x in first))
        if not jax.tree.leaves(weights):
            raise ValueError(f"{name} has no weights, so it cannot learn; give it layers")
        given, again = called(self._of_user, attempt, weights, first, second)
        parts = given if isinstance(given, tuple) else (given,)
        shapes = [getattr(x, "shape", None) for x in parts]
        if not isinstance(given, tuple) or shapes != [(3, self.actions.size), (3,)]:
            wanted = f"(outputs [n, {self.actions.size}], value [n])"
            raise ValueError(f"{name} gives the shapes {shapes} for 3 decisions; it must return {wanted}")
        for one, other in zip(given, again, strict=True):
            check_numbers(name, one)
            difference = float(np.abs(one[[0, 1]] - other[[0, 2]]).max())
            if difference > SAME * (1 + float(np.abs(one).max())):
                raise ValueError(
                    f"{name} gives another result for a decision beside other decisions (by {difference:.2g}), and "
                    "those may be of later bars; let each row depend on its own window and account alone"
                )


class OwnPortfolio(OwnActorCritic, PortfolioActorCritic):
    """An actor and a critic of several assets under one account, that are one module of the user's own.

    It is called as in `OwnActorCritic`, with an axis of assets:

    - `window`: `[n, window, assets, features]` float32, normalised, and 0 where an asset is not listed.
    - `account`: `[n, assets, K + 1]` float32. The last number is 1 where the asset can be traded now, and otherwise 0.
    - `outputs`: `[n, assets]`: of weights the scores, where cash has the score 0, or the means of exposures.
    - `value`: `[n]`.

    What is put out for an asset that cannot be traded does not count. Where the shapes of the weights do not depend on
    the number of assets, the policy decides on any number of them. `log_std` is one number for all assets.
    """

    @property
    def axes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The axes of one decision's window, and of its account."""
        assets = self.actions.size
        return (self.window, assets, self.features), (assets, self.account + 1)

    @nn.nowrap
    def account_row(self, account: Float[Array, "*c assets K"]) -> Float[Array, "*c row"]:
        """Return the numbers of all assets as one row. Where all can always be traded, the account does not say so."""
        if account.shape[-1] == self.account:
            account = jnp.concatenate([account, jnp.ones_like(account[..., :1])], -1)
        return super().account_row(account)

    @property
    def initial_assets(self) -> int:
        """The weights may depend on the number of assets."""
        return self.actions.size

    @nn.nowrap
    def check_weights(self, weights: Any) -> None:
        """Raise ValueError where these weights, of another number of assets, do not fit this network."""
        assert self.module is not None
        shapes = lambda tree: jax.tree.map(lambda x: x.shape, tree)  # noqa: E731
        try:
            fits = shapes(jax.eval_shape(self.fresh, jax.random.key(0))) == shapes(weights)
        except Exception:  # what the user's module raises is not known
            fits = False
        if not fits:
            raise ValueError(
                f"{self.module.name} has weights for the number of assets of its training, and there are "
                f"{self.actions.size}; give as many as in its training, or share the weights between assets"
            )


def fresh_weights(module: nn.Module, attempt: str, *inputs: np.ndarray) -> Any:
    """Return fresh weights of a user's module for these inputs.

    Raises ValueError where it cannot be called so, or needs more than float32 weights: other variables, or random
    numbers. `attempt` says what it cannot, in messages.
    """
    name = type(module).__name__
    variables = _tried(module, attempt, _init, *inputs)
    further = ", ".join(sorted(set(variables) - {"params"}))
    if further:
        raise ValueError(
            f"{name} keeps {further} beside its weights, as BatchNorm does, and a policy has weights alone; use "
            "LayerNorm or GroupNorm"
        )
    weights = variables.get("params", {})
    types = sorted({str(x.dtype) for x in jax.tree.leaves(weights)} - {"float32"})
    if types:
        raise ValueError(f"{name} has weights of {', '.join(types)}; leave `param_dtype` at float32")
    return weights


def called(module: nn.Module, attempt: str, weights: Any, *calls: Sequence[np.ndarray]) -> list[Any]:
    """Return what a user's module gives for the inputs of each call.

    Raises ValueError where it cannot be called, see `fresh_weights`.
    """
    return _tried(module, attempt, _apply, weights, *calls)


@partial(compilation.Jitted, cpu_options=compilation.RUNS_ONCE, static_argnums=0)
def _init(module: nn.Module, *inputs: Array) -> Any:
    return module.init(jax.random.key(0), *inputs)


@partial(compilation.Jitted, cpu_options=compilation.RUNS_ONCE, static_argnums=0)
def _apply(module: nn.Module, weights: Any, *calls: Sequence[Array]) -> list[Any]:
    return [module.apply({"params": weights}, *inputs) for inputs in calls]


def _tried(module: nn.Module, attempt: str, program: compilation.Jitted, *arguments: Any) -> Any:
    """Return what a program gives, as NumPy arrays. While a training is traced it runs too, and is no part of that."""
    name = type(module).__name__
    try:
        return jax.device_get(program.lower(module, *arguments).compile()(*arguments))
    except flax.errors.InvalidRngError as error:
        raise ValueError(
            f"{name} draws random numbers, as Dropout does, and a policy decides without any; leave that out, or say "
            "deterministic=True"
        ) from error
    except Exception as error:  # what the user's code raises is not known
        raise ValueError(f"{name} cannot {attempt}: {shown(' '.join(str(error).split()), MOST_SHOWN)}") from error


def check_numbers(name: str, numbers: np.ndarray) -> None:
    """Raise ValueError where a module's output is not of finite floats."""
    if not jnp.issubdtype(numbers.dtype, jnp.floating):
        raise ValueError(f"{name} gives numbers of {numbers.dtype}; it must give floats, such as float32")
    if not np.isfinite(numbers).all():
        raise ValueError(f"{name} gives numbers that are not finite for random bars")


@runtime_checkable
class ChunkEncoder(Protocol):
    """What a class of encoders declares that may answer for all decisions of a chunk at once."""

    reads_chunks: bool


def reads_chunks(module: nn.Module) -> bool:
    """Whether the module answers for all decisions of a chunk at once."""
    return isinstance(module, ChunkEncoder) and module.reads_chunks


def _seen(module: nn.Module, bars: Float[Array, "*b bars inputs"], window: int) -> Array:
    return bars if reads_chunks(module) else windows_of(bars, window)


@functools.lru_cache(maxsize=64)
def _shape(module: nn.Module, window: int, inputs: int, decisions: int) -> tuple[Any, int]:
    """The output for one path of so many decisions, without its numbers, and how many numbers its operations give."""
    bars = jnp.zeros((window - 1 + decisions, inputs), jnp.float32)  # also in a backtest, whose money is float64
    seen = jax.eval_shape(lambda x: _seen(module, x, window), bars)
    given = jnp.zeros(seen.shape, jnp.float32)
    shape: Any = jax.eval_shape(lambda x: module.init_with_output(jax.random.key(0), x)[0], given)
    return shape, operations(module, (given,))


def operations(module: nn.Module, inputs: tuple[Array, ...]) -> int:
    """Return how many numbers the operations of a module give for these inputs, with those of its initialisation."""
    program = jax.make_jaxpr(lambda *x: module.init_with_output(jax.random.key(0), *x)[0])(*inputs)
    made = [x.aval for equation in program.eqns for x in equation.outvars]
    return sum(math.prod(x.shape) for x in made if isinstance(x, jax.core.ShapedArray))


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)
