"""A paper account: a file of bars is replayed bar by bar, as a live feed would bring them.

    python -m jaxtrader.examples.live_paper [--run runs/prices-0001] [--data prices.csv] [--quick]

Without `--run` it trains a policy on the first 70% of the bars. Without `--data` it takes a bundled stock. In a loop of
your own, the bars come from your broker or exchange, and `decision.target` becomes an order there.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np

import jaxtrader as jt
from jaxtrader.agents.policy import Policy
from jaxtrader.examples import running
from jaxtrader.live.live import Live
from jaxtrader.live.recent import bar_at, up_to

PRINTED = 10  # changes of the target


def train(bars: jt.Bars, quick: bool) -> Policy:
    """Return a policy that was trained on the first 70% of the bars, and selected on some of them."""
    train, valid = jt.Market.from_bars(bars).split(0.55, 0.15)
    env = jt.TradingEnv(train, positions=(0, 0.5, 1), window=1, reward=jt.rewards.risk_penalized(5))
    agent = jt.PPOAgent(hidden=running.hidden(quick))
    return jt.Trainer(env, agent, valid=valid, **running.size(quick, 200_000)).train().policy


def replay(policy: Policy, bars: jt.Bars, first: int) -> Live:
    """Give the bars after the first ones to a live account, and print the changes of its target."""
    live = policy.live(up_to(bars, bars.times[first]))
    target, printed, seconds = live.decision.target, 0, []
    for i in range(first + 1, len(bars)):
        bar = bar_at(bars, i)
        begun = time.perf_counter()
        # The file has no bars where it has gaps. A live feed leaves out `after_gap`, and is told of missing bars.
        decision = live.on_bar(bars.times[i], **bar, after_gap=True)
        seconds.append(time.perf_counter() - begun)
        if decision.target != target and printed < PRINTED:
            printed += 1
            print(f"{str(bars.times[i])[:16]}  hold {decision.exposure:.2f} -> target {decision.target:g}")
        target = decision.target
        if i == (first + len(bars)) // 2:  # as if the process had been stopped, and started again
            with tempfile.TemporaryDirectory() as folder:
                live.save(Path(folder) / "account.live")
                live = policy.resume_live(Path(folder) / "account.live")
    print(f"... {len(seconds):,} bars, {1000 * float(np.median(seconds)):.2f} ms each")
    return live


def main(quick: bool = False, run: str | None = None, data: str | None = None) -> None:
    """Replay the last 30% of a file as a paper account, and compare it with a backtest of the same bars."""
    loaded = jt.load_bundled(("IBM",)) if data is None else jt.load_bars(data)
    bars = loaded if isinstance(loaded, jt.Bars) else loaded[0]
    policy = train(bars, quick) if run is None else jt.load_policy(run)
    first = int(0.7 * len(bars))
    live = replay(policy, bars, first)
    market = jt.Market.from_bars(bars, features=policy.features).split(bars.times[first])[1]
    print(f"equity {live.equity:.4f}, and {jt.backtest(policy, market).equity[-1]:.4f} in a backtest")


if __name__ == "__main__":
    running.run(main, run="the folder of a run, or a policy file", data="a file of bars: CSV, Parquet and others")
