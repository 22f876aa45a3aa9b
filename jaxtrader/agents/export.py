"""Export: a policy as one function of raw features, for programs that have no jaxtrader or no JAX.

Normalisation, network and the choice of a target are inside. The number of decisions at once is left open.
"""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Generator
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from jaxtrader import files
from jaxtrader.agents.policy import Policy, decide, first_state
from jaxtrader.envs.observation import TRADABLE
from jaxtrader.jax_settings import package_settings
from jaxtrader.setting_checks import check_whole, setting

Format = Literal["onnx", "stablehlo"]
PLATFORMS = ("cpu", "cuda", "tpu")
INPUTS, OUTPUTS = ("window", "account"), ("target", "value", "probabilities")  # in this order


@dataclass(frozen=True)
class Exported:
    """What an exported file takes and gives. It is written beside the file as JSON.

    Attributes:
        inputs: the axes of each input, by name. "batch" is any number of decisions.
        outputs: the axes of each output, by name.
        features: the names on the last axis of the window, oldest bar first on the axis before.
        account: the names on the last axis of the account.
        positions: the exposures of the probabilities, in order. None: the policy has no probabilities.
        symbols: what the policy was trained on. A portfolio's window has its assets in this order.
        flat: the account of one that never traded. None: it shows the state of a reward of the user's own.
        bars_needed: bars of history from which the features of one window are computed.
    """

    inputs: dict[str, list[str | int]]
    outputs: dict[str, list[str | int]]
    features: list[str]
    account: list[str]
    positions: list[float] | None
    symbols: list[str]
    flat: list[float] | None
    bars_needed: int


@package_settings()
def export(policy: Policy, path: str | PathLike[str], to: Format = "onnx", assets: int | None = None) -> Exported:
    """Write a policy as one function of float32 arrays, and beside it a JSON file that describes it (see `Exported`).

    The function takes `window` `[batch, window, feature]` of raw features and `account` `[batch, K]`. It returns
    `target` `[batch]`, the exposure by the policy's mode, and `value` `[batch]`. A policy of positions also returns
    their `probabilities` `[batch, positions]`. An ensemble returns the means over its members. An agent of the user's
    own returns what its `select_action` has of these. A portfolio has an axis of assets: `[batch, window, assets,
    feature]`, `[batch, assets, K + 1]` and `[batch, assets]`. Its account ends with 1 or 0 for whether the asset can be
    traded now.

    Args:
        policy: what `load_policy` returned. It was trained in a `TradingEnv`.
        path: the file to write.
        to: "onnx" for ONNX runtimes, which needs `pip install 'jaxtrader[onnx]'`. "stablehlo" for
            `jax.export.deserialize`, on CPU, CUDA and TPU.
        assets: the number of assets that a portfolio's function takes. By default it is that of the training. An agent
            of the user's own takes no other.

    Returns:
        What the file takes and gives.

    Raises:
        ValueError: the policy is not one of a TradingEnv, the format is unknown, or ONNX cannot express the network.
            StableHLO can, where the code of an agent of the user's own leaves the number of decisions open.
        ImportError: the format needs a package that is not installed.
    """
    if to not in get_args(Format):
        raise ValueError(f"{setting('to', to)} is unknown; use {' or '.join(get_args(Format))}")
    if not policy.trades:
        raise ValueError("only a policy that was trained in a TradingEnv can be exported")
    if assets is not None and not policy.portfolio:
        raise ValueError(
            f"{setting('assets', assets)} is of a portfolio, and this policy trades one asset; leave it out"
        )
    if assets is not None:
        check_whole("assets", assets)
    if policy.is_own:
        count = policy.assets
        if assets not in (None, count):
            raise ValueError(
                f"{setting('assets', assets)}: an agent of your own trades the {count} of its training; leave it out"
            )
    else:
        network = first_state(policy.state).network
        count = (int(assets) if assets else network.actions.size) if policy.portfolio else 1
        if to == "onnx" and network.compute_dtype != "float32":
            raise ValueError(
                f"the policy computes in {network.compute_dtype}, which ONNX runtimes do not on a CPU; use "
                "`to='stablehlo'`, or train with `compute_dtype='float32'`"
            )
    about = _about(policy, count)
    write = _onnx if to == "onnx" else _stablehlo
    content = write(lambda *given: tuple(_decided(policy, *given)[name] for name in about.outputs), about)
    path = Path(path)
    files.write_bytes(path, content)
    files.write_bytes(path.with_name(path.name + ".json"), json.dumps(vars(about), indent=1).encode())
    return about


def _about(policy: Policy, assets: int) -> Exported:
    some: list[str | int] = [assets] if policy.portfolio else []
    names = [*policy.account_names, *([TRADABLE] if policy.portfolio else [])]
    window, account = [policy.window, *some, len(policy.features)], [*some, len(names)]
    shapes = (jax.ShapeDtypeStruct((1, *each), np.float32) for each in (window, account))
    given = jax.eval_shape(partial(_decided, policy), *shapes)
    outputs: dict[str, list[str | int]] = {name: ["batch", *given[name].shape[1:]] for name in OUTPUTS if name in given}
    positions = policy.members[0].positions
    try:
        flat = list(map(float, policy.untraded()))
    except ValueError:
        flat = None
    return Exported(
        inputs={"window": ["batch", *window], "account": ["batch", *account]},
        outputs=outputs,
        features=list(policy.features),
        account=names,
        positions=list(positions) if isinstance(positions, tuple) and "probabilities" in outputs else None,
        symbols=list(policy.symbols),
        flat=flat,
        bars_needed=policy.bars_needed,
    )


def _decided(
    policy: Policy, window: Float[Array, "b bar *a F"], account: Float[Array, "b *a K"]
) -> dict[str, Float[Array, "b ..."]]:
    """Return OUTPUTS for raw windows and accounts. The weights are constants of an exported program."""
    if not policy.portfolio:
        window, account = window[:, :, None], account[:, None]
    each = []
    for member in policy.members:
        action, about = decide(member.acting_agent, member.state_for(account.shape[1]), window, account)
        if isinstance(member.positions, tuple):
            action = jnp.asarray(member.positions, jnp.float32)[action][:, None]
        each.append({"target": action} | {name: about[name] for name in OUTPUTS if name in about})
    means = jax.tree.map(lambda *parts: sum(parts[1:], parts[0]) / len(parts), *each)
    return means if policy.portfolio else means | {"target": means["target"][:, 0]}


def _stablehlo(function: Any, about: Exported) -> bytes:
    from jax import export as jax_export

    sizes = jax_export.symbolic_shape("batch")
    shapes = [
        jax.ShapeDtypeStruct(tuple(sizes[0] if size == "batch" else size for size in about.inputs[name]), np.float32)
        for name in INPUTS
    ]
    return bytes(jax_export.export(jax.jit(function), platforms=PLATFORMS)(*shapes).serialize())


@contextlib.contextmanager
def _restored(*modules: Any) -> Generator[None]:
    """Put back what was changed in the modules: jax2onnx replaces functions of JAX, and forgets some (0.17: cumsum)."""
    before = [(module, dict(vars(module))) for module in modules]
    try:
        yield
    finally:
        for module, names in before:
            for name in vars(module).keys() - names.keys():
                delattr(module, name)
            for name, value in names.items():
                if vars(module).get(name) is not value:
                    setattr(module, name, value)


def _onnx(function: Any, about: Exported) -> bytes:
    try:
        import jax2onnx
        import onnx
    except ImportError as error:
        raise ImportError("ONNX needs jax2onnx; pip install 'jaxtrader[onnx]', or use `to='stablehlo'`") from error
    shapes = [tuple("B" if size == "batch" else size for size in about.inputs[name]) for name in INPUTS]
    noisy = logging.getLogger("onnx_ir")
    level = noisy.level
    try:
        noisy.setLevel(logging.ERROR)
        with _restored(jnp, jax.lax, jax.nn, jax.random, nn), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it tries float64 first, which JAX does not have here
            model = jax2onnx.to_onnx(
                function, inputs=shapes, model_name="policy", input_names=list(INPUTS), output_names=list(about.outputs)
            )
            onnx.checker.check_model(model, full_check=True)
    # What the converter raises for an operation that it does not know is not documented, and it writes some wrongly.
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(
            f"ONNX cannot express an operation of the policy's network ({type(error).__name__}: {reason:.200}); export "
            "to stablehlo"
        ) from error
    finally:
        noisy.setLevel(level)
    entry = model.metadata_props.add()
    entry.key, entry.value = "jaxtrader", json.dumps(vars(about))
    return model.SerializeToString()
