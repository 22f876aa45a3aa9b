"""What a training returns, and what it raises where its numbers go wrong."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtrader.agents.policy import Policy
from jaxtrader.agents.policy_loading import load_trained
from jaxtrader.agents.protocol import Agent
from jaxtrader.evaluation.proof import Proof
from jaxtrader.run_files import POLICY


class TrainingDiverged(RuntimeError):
    """A number became NaN or infinite, or an action was invalid. The message names it. The last good state is saved.

    Example:
        >>> def train_or_say_why(trainer):
        ...     try:
        ...         return trainer.train()
        ...     except jt.TrainingDiverged as error:
        ...         print(error)  # names what was not finite, and where the last good state is
    """


@dataclass(frozen=True, eq=False)
class TrainResult:
    """What `Trainer.train` returns.

    Attributes:
        state: the agent's last state.
        agent, env: the agent and the environment of the training.
        history: the records of metrics.jsonl.
        updates, steps, episodes: the numbers of finished updates, steps and episodes.
        seconds: duration of the training with compilation and validation. Of a resumed run it includes the time before.
        best: the record of the best validation. None without validation.
        run_dir: the folder with policy.pkl, last.pkl, checkpoint.pkl, config.json and metrics.jsonl.
        interrupted: True where Ctrl-C or another signal ended the training before its end. A callback that ends it
            does not interrupt it.
        members: the results of the single seeds, where there are several. `state` is then a tuple of their states, and
            `updates`, `steps`, `episodes` and `seconds` are sums. Each record of `history` has its `seed`. `best` is
            None.
        proof: the comparison of the policy with holding on validation, where `must_beat_holding` asks for it.

    Example:
        >>> env = jt.TradingEnv(jt.Market.from_bars(jt.load_bundled("IBM")), positions=(0, 1), window=2)
        >>> size = {"num_envs": 8, "rollout_length": 16, "total_steps": 256, "progress": False}
        >>> result = jt.Trainer(env, jt.PPOAgent(hidden=(8,), num_minibatches=2), run_dir="runs/one", **size).train()
        >>> result.steps, result.history[-1]["steps"], result.policy_path.name
        (256, 256, 'policy.pkl')
    """

    state: Any
    agent: Agent
    env: Any
    history: list[dict[str, Any]]
    updates: int
    steps: int
    episodes: int
    seconds: float
    best: dict[str, Any] | None
    run_dir: Path
    interrupted: bool
    members: tuple[TrainResult, ...] = ()
    proof: Proof | None = None

    @property
    def policy_path(self) -> Path:
        """The file of the best policy on validation. Without validation it holds the last policy.

        With several seeds it holds the ensemble of their policies. With `must_beat_holding` it may hold a policy that
        never trades but to keep its exposure.
        """
        return self.run_dir / POLICY

    @property
    def policy(self) -> Policy:
        """The policy in `policy_path`."""
        return load_trained(self.policy_path, self.agent, self.env)

    def __repr__(self) -> str:
        best = "" if self.best is None else f", best of validation after {self.best['updates']:,}"
        counts = f"{self.updates:,} updates{best}, {self.steps:,} steps, {self.episodes:,} episodes"
        return f"TrainResult({counts}, {self.seconds:.0f} s{', interrupted' * self.interrupted}, {self.run_dir})"
