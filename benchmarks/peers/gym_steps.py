"""Steps of gym-trading-env or gym-anytrading with random actions, one environment, reset where an episode ends."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pandas as pd
from turns import Work, serve

# Each reset of gym-trading-env fills a table with a row for every bar of its frame. Of 100,000 bars that would be a
# part of its time, so it gets few, in its favour.
GYM_TRADING_ENV_BARS = 2_000


def bars_of(market: str) -> pd.DataFrame:
    """Hourly bars from the columns of an .npz."""
    with np.load(market) as stored:
        index = pd.date_range("2000-01-01", periods=len(stored["close"]), freq="h")
        return pd.DataFrame({name: stored[name] for name in stored.files}, index)


def trading_env(frame: pd.DataFrame, window: int, episode: int) -> gymnasium.Env:
    """gym-trading-env on the first bars of a frame with columns f0, f1 and so on, at fees of 6 basis points."""
    import gym_trading_env  # noqa: F401  registers "TradingEnv"

    features = {name: f"feature_{name}" for name in frame if name.startswith("f")}
    return gymnasium.make(
        "TradingEnv",
        df=frame.iloc[:GYM_TRADING_ENV_BARS].rename(columns=features),
        positions=[-1, 0, 1],
        windows=window,
        trading_fees=6e-4,
        max_episode_duration=episode,
        verbose=0,
        disable_env_checker=True,
    )


def anytrading(frame: pd.DataFrame, window: int, episode: int) -> gymnasium.Env:
    """gym-anytrading's stocks, whose features are price and change. Its episodes run to the end of the frame."""
    import gym_anytrading  # noqa: F401  registers "stocks-v0"

    frame = frame.rename(columns={"close": "Close"})
    return gymnasium.make(
        "stocks-v0", df=frame, window_size=window, frame_bound=(window, len(frame)), disable_env_checker=True
    )


MAKERS = {"gym-trading-env": trading_env, "gym-anytrading": anytrading}


def prepare(settings: dict[str, Any]) -> tuple[Work, dict[str, Any]]:
    """`steps` steps of `env` on the bars in `market`."""
    env = MAKERS[settings["env"]](bars_of(settings["market"]), settings["window"], settings["episode"])
    rng = np.random.default_rng(0)
    count = env.action_space.n  # type: ignore[attr-defined]
    env.reset()

    def work() -> int:
        for action in rng.integers(0, count, settings["steps"]).tolist():
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()
        return settings["steps"]

    return work, {"observation": str(env.observation_space.shape)}


if __name__ == "__main__":
    serve(prepare, "gym-trading-env", "gym-anytrading", "gymnasium", "numpy")
