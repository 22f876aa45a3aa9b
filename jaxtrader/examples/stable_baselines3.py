"""Stable-Baselines3's PPO trains in our environment, and we test its model by our ledger.

pip install "jaxtrader[sb3]"
python -m jaxtrader.examples.stable_baselines3 [--quick]
"""

from __future__ import annotations

import jaxtrader as jt
from jaxtrader.examples.running import run, show


def main(quick: bool = False) -> None:
    """Train SB3's PPO on a stock, and trade the bars that follow by its model."""
    try:
        from stable_baselines3 import PPO  # pyrefly: ignore[missing-import]
        from stable_baselines3.common.vec_env import VecNormalize  # pyrefly: ignore[missing-import]
    except ImportError as error:
        raise SystemExit('this example needs Stable-Baselines3: pip install "jaxtrader[sb3]"') from error
    from jaxtrader.bridges.sb3 import to_sb3

    market = jt.Market.from_bars(jt.load_bundled(("IBM",)))
    train, test = market.split(0.75, 0.25)
    env = jt.TradingEnv(train, positions=(0, 1), window=4, episode_length=64)
    vector = to_sb3(env, num_envs=16 if quick else 64)
    # SB3 does not scale its value targets, and a bar's log return is small.
    model = PPO("MlpPolicy", VecNormalize(vector, norm_obs=False), n_steps=32, batch_size=512, seed=0, device="cpu")
    model.learn(512 if quick else 200_000)
    # The features of the test are scaled as those of the training: `vector` knows how.
    show(test, {"policy": jt.backtest(model, test, env=vector)})


if __name__ == "__main__":
    run(main)
