"""Encoders: a chunk equals its windows, the window is exactly what is seen, and both equal NumPy in float64."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrader.agents import encoders, ppo_settings
from jaxtrader.agents.action_spec import ActionSpec
from jaxtrader.agents.encoders import Attention, spans
from jaxtrader.agents.networks import ActorCritic

ASSETS, FEATURES, WIDTH = 2, 3, 16
DECISIONS = 37
QUICK = [("mlp", 3, None), ("tcn", 13, 2), ("attention", 32, 1), ("gru", 5, 2), ("lru", 13, 2)]  # one of each kind
SLOW = [
    ("tcn", 2, None),
    ("tcn", 32, None),
    ("attention", 2, None),
    ("attention", 13, 3),
    ("lru", 2, None),
    ("lru", 11, 1),
]
CASES = [*QUICK, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)]


@cache
def make(kind: ppo_settings.Encoder, window: int, depth: int | None, **changes) -> tuple[ActorCritic, dict]:
    """A network and weights that are all of a size, so that a lost one shows. No initialisation is compiled."""
    network = ActorCritic(
        window,
        ASSETS * FEATURES,
        0,
        ActionSpec("discrete", 3),
        hidden=(8,),
        encoder=kind,
        encoder_width=WIDTH,
        encoder_depth=depth,
        **changes,
    )
    rng, shapes = np.random.default_rng(5), jax.eval_shape(network.fresh, jax.random.key(1))
    return network, jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape).astype(x.dtype), shapes)


def encode(network: ActorCritic) -> Callable[[dict, jax.Array], jax.Array]:
    return lambda weights, chunk: network.apply({"params": weights}, chunk, method="encode")


@cache
def pulled(network: ActorCritic) -> Callable[..., tuple]:
    """Compiled `(weights, bars, pull)`: gradients of the mean of contexts * pull for weights and bars, and contexts."""

    def total(weights: dict, chunk: jax.Array, pull: jax.Array) -> tuple[jax.Array, jax.Array]:
        contexts = encode(network)(weights, chunk).reshape(pull.shape)
        return (contexts * pull).mean(), contexts

    return jax.jit(jax.grad(total, (0, 1), has_aux=True))


def bars(count: int, paths: int = 2) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(paths, count, ASSETS, FEATURES)).astype(np.float32)


PULL = np.random.default_rng(1).normal(size=(2, DECISIONS, 16)).astype(np.float32)


@pytest.mark.quick(2)
@pytest.mark.parametrize(("kind", "window", "depth"), CASES)
def test_a_chunk_equals_its_windows_one_by_one_gradients_too(
    kind: ppo_settings.Encoder, window: int, depth: int | None
) -> None:
    network, weights = make(kind, window, depth)
    chunk = bars(window - 1 + DECISIONS)
    windows = np.stack([chunk[:, t : t + window] for t in range(DECISIONS)], 1)
    (slope, _), whole = pulled(network)(weights, chunk, PULL)
    (slopes, _), each = pulled(network)(weights, windows, PULL)
    assert np.std(whole) > 0.3
    np.testing.assert_allclose(whole, each, rtol=1e-5, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), slope, slopes)


@pytest.mark.parametrize(("kind", "window", "depth"), CASES)
def test_a_decision_depends_on_every_bar_of_its_window_and_on_no_other(
    kind: ppo_settings.Encoder, window: int, depth: int | None
) -> None:
    network, weights = make(kind, window, depth)
    chunk, decision = bars(window - 1 + DECISIONS), 9
    pull = np.zeros((2, DECISIONS, 16), np.float32)
    pull[:, decision] = 1
    (_, slope), contexts = pulled(network)(weights, chunk, pull)
    felt = np.abs(slope).max((0, 2, 3)) > 0
    np.testing.assert_array_equal(np.flatnonzero(felt), np.arange(decision, decision + window))
    # The same by changing bars. Outside the window no bit moves.
    oldest, newest = decision, decision + window - 1
    for row, moves in ((oldest - 1, False), (oldest, True), (newest, True), (newest + 1, False)):
        changed = chunk.copy()
        changed[:, row] = 30.0
        after = pulled(network)(weights, changed, pull)[1]
        assert np.array_equal(after[:, decision], contexts[:, decision]) != moves, row


# --- against NumPy ---


def dense(layer: dict, x: np.ndarray) -> np.ndarray:
    return x @ layer["kernel"] + layer["bias"]


def norm(layer: dict, x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * layer["scale"] + layer["bias"]


def numpy_tcn(trunk: dict, x: np.ndarray, offsets: list[tuple[int, ...]]) -> np.ndarray:
    """y[t] = x[t] + tanh(b + sum over taps of W[tap] x[t - offset]), layer by layer, bars before the first as 0."""
    x = dense(trunk["embed"], x)
    for i, taps in enumerate(offsets):
        kernel = np.split(trunk[f"layer_{i}"]["kernel"], len(taps), 1)
        y = np.zeros_like(x)
        for t in range(len(x)):
            inner = trunk[f"layer_{i}"]["bias"].copy()
            for offset, weights in zip(taps, kernel, strict=True):
                if t >= offset:
                    inner += x[t - offset] @ weights
            y[t] = x[t] + np.tanh(inner)
        x = y
    return x


def numpy_attention(trunk: dict, x: np.ndarray, spans: list[int]) -> np.ndarray:
    """Transformer blocks with the full matrix of scores, masked to a band, and rotations by complex numbers."""
    x, heads = dense(trunk["embed"], x), WIDTH // 16
    rates = 10_000.0 ** (-np.arange(8) / 8)
    distance = np.arange(len(x))[:, None] - np.arange(len(x))
    for i, span in enumerate(spans):
        part = lambda name, i=i: trunk[f"layer_{i}_{name}"]  # noqa: E731
        normed = norm(part("norm"), x)
        key, value = np.split(dense(part("key_value"), normed), 2, -1)
        query, key, value = (y.reshape(-1, heads, 16) for y in (dense(part("query"), normed), key, value))
        seen = np.zeros_like(value)
        for head in range(heads):
            q, k = (y[:, head, :8] + 1j * y[:, head, 8:] for y in (query, key))
            turned = np.exp(1j * distance[..., None] * rates)
            scores = (q[:, None] * k.conj() * turned).sum(-1).real / 4
            weights = np.where((distance >= 0) & (distance < span), np.exp(scores), 0)
            seen[:, head] = weights / weights.sum(-1, keepdims=True) @ value[:, head]
        x = x + dense(part("out"), seen.reshape(len(x), -1))
        x = x + dense(part("mlp_out"), np.tanh(dense(part("mlp_in"), norm(part("mlp_norm"), x))))
    return norm(trunk["norm"], x)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def numpy_gru(trunk: dict, x: np.ndarray) -> np.ndarray:
    """r and z are gates, n is the new state with the old one gated by r, and h = (1 - z) n + z h, bar by bar."""
    for i in range(len(trunk) // 3):
        h, states = np.zeros(WIDTH), []
        for taken in dense(trunk[f"layer_{i}_in"], x):
            (r, z, new), (r_h, z_h, new_h) = np.split(taken, 3), np.split(h @ trunk[f"layer_{i}_kernel"], 3)
            r, z = sigmoid(r + r_h), sigmoid(z + z_h)
            h = (1 - z) * np.tanh(new + r * (new_h + trunk[f"layer_{i}_bias"])) + z * h
            states.append(h)
        x = np.stack(states)
    return x[-1]


def numpy_lru(trunk: dict, x: np.ndarray, spans: list[int]) -> np.ndarray:
    """Sums over the span of decay^k times the driven bars, then a gated linear layer that is added."""
    x = dense(trunk["embed"], x)
    for i, span in enumerate(spans):
        decay = np.exp(-np.exp(trunk[f"layer_{i}_rate"]))
        driven = x @ trunk[f"layer_{i}_kernel"] * np.sqrt(1 - decay**2)
        h = np.stack([sum(decay**k * driven[t - k] for k in range(span)) for t in range(span - 1, len(x))])
        value, gate = np.split(dense(trunk[f"layer_{i}_out"], h), 2, -1)
        x = x[span - 1 :] + value * sigmoid(gate)
    return np.tanh(x)[-1]


@pytest.mark.parametrize(
    ("kind", "window", "depth", "layers"),
    [
        ("tcn", 13, None, [(0, 1), (0, 2), (0, 4), (0, 5)]),
        ("tcn", 13, 2, [(0, 1, 2, 3), (0, 3, 6, 9)]),
        ("attention", 32, 1, [32]),
        ("attention", 40, None, [20, 21]),
        ("gru", 5, 2, None),
        ("lru", 13, 2, [7, 7]),
    ],
)
def test_encoders_equal_numpy_in_float64(
    kind: ppo_settings.Encoder, window: int, depth: int | None, layers: list
) -> None:
    network, weights = make(kind, window, depth)
    chunk = bars(window - 1 + DECISIONS)
    if (kind, window, depth) in QUICK:  # compiled for the tests above
        found = pulled(network)(weights, chunk, PULL)[1][0]
    else:
        found = jax.jit(encode(network))(weights, chunk)[0]
    exact = jax.tree.map(np.float64, weights)
    rows = np.float64(chunk[0]).reshape(len(chunk[0]), -1)
    if kind in ("tcn", "attention"):
        x = (numpy_tcn if kind == "tcn" else numpy_attention)(exact["trunk"], rows, layers)[window - 1 :]
    else:
        windows = [rows[t - window : t] for t in range(window, len(rows) + 1)]
        x = np.stack(
            [numpy_gru(exact["trunk"], w) if kind == "gru" else numpy_lru(exact["trunk"], w, layers) for w in windows]
        )
    expected = x @ exact["first_kernel"] + exact["first_bias"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("depth", [None, 1, 2, 3, 9])
def test_layers_of_any_depth_reach_exactly_the_window_and_leave_no_bar_out(depth: int | None) -> None:
    for window in range(1, 70):
        layers = encoders.kernels(window, depth)
        assert 1 + sum(back[-1] for back in layers) == window
        seen = {0}
        for back in layers:
            assert list(back) == sorted(set(back))
            seen = {bar + offset for bar in seen for offset in back}
        assert seen == set(range(window))
        assert depth in (None, len(layers))
        assert 1 + sum(span - 1 for span in spans(window, depth or Attention.USUAL_DEPTH)) == window
        assert min(spans(window, depth or Attention.USUAL_DEPTH)) >= 1


# --- bfloat16 ---


@pytest.mark.parametrize(("kind", "window", "depth"), QUICK)
def test_bfloat16_is_near_float32_and_gives_float32(kind: ppo_settings.Encoder, window: int, depth: int | None) -> None:
    network, weights = make(kind, window, depth, compute_dtype="bfloat16")
    assert {x.dtype for x in jax.tree.leaves(weights)} == {np.dtype("float32")}
    chunk = bars(window - 1 + DECISIONS)
    half = jax.jit(encode(network))(weights, chunk)
    full = pulled(make(kind, window, depth)[0])(weights, chunk, PULL)[1]
    assert half.dtype == jnp.float32
    assert 0 < np.abs(full - half).max() < 0.1 * np.abs(full).max()


@pytest.mark.parametrize(
    ("kind", "window", "decisions"),
    [
        ("mlp", 64, 48),
        ("tcn", 64, 48),
        pytest.param("attention", 64, 48, marks=pytest.mark.slow),
        pytest.param("gru", 32, 48, marks=pytest.mark.slow),
        pytest.param("lru", 64, 48, marks=pytest.mark.slow),
        pytest.param("attention", 16, 256, marks=pytest.mark.slow),
        pytest.param("attention", 128, 20, marks=pytest.mark.slow),
    ],
)
def test_activation_count_is_about_what_the_compiler_sets_aside(
    kind: ppo_settings.Encoder, window: int, decisions: int
) -> None:
    network, weights = make(kind, window, None)
    paths = 32
    chunk = jax.ShapeDtypeStruct((paths, window - 1 + decisions, ASSETS, FEATURES), jnp.float32)
    slope = jax.jit(jax.grad(lambda weights, chunk: (encode(network)(weights, chunk) ** 2).sum()))
    aside = slope.lower(weights, chunk).compile().memory_analysis().temp_size_in_bytes
    guess = 4 * paths * network.make_encoder().activation_count(ASSETS * FEATURES, decisions)
    assert 0.4 < guess / aside < 2.5
