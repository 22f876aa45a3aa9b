"""Our environments as a `VecEnv` of Stable-Baselines3, which does not take Gymnasium's own vectors.

All accounts step in one compiled call. It needs `pip install "jaxtrader[sb3]"`.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv  # pyrefly: ignore[missing-import]

from jaxtrader.bridges.gymnasium_envs import GymnasiumVectorEnv, to_gymnasium


def to_sb3(env: Any, num_envs: int = 64, **form: Any) -> SB3VecEnv:
    """Return an environment as a `VecEnv` of Stable-Baselines3.

    SB3 does not scale the values that it learns, and a bar's reward is small: `VecNormalize(..., norm_obs=False)` does.

    Args:
        env: a TradingEnv, or any environment in gymnax 1.0's shape.
        num_envs: the number of environments.
        form: `params`, `normalize` and `observation` of `to_gymnasium`.
    """
    vector = to_gymnasium(env, num_envs, **form)
    assert isinstance(vector, GymnasiumVectorEnv)
    return SB3VecEnv(vector)


class SB3VecEnv(VecEnv):
    """Many environments, each with auto-reset. At the end of an episode `info` has its figures and last observation.

    Attributes:
        vector: the `GymnasiumVectorEnv` that does the steps.
        trading_env, form: the attributes of `vector`.
    """

    def __init__(self, vector: GymnasiumVectorEnv) -> None:
        self.vector, self.trading_env, self.form = vector, vector.trading_env, vector.form
        self.render_mode, self._began = None, time.time()
        self._actions: Any = None
        self._returns, self._lengths = np.zeros(vector.num_envs), np.zeros(vector.num_envs, int)
        super().__init__(vector.num_envs, vector.single_observation_space, vector.single_action_space)

    def reset(self) -> Any:
        """Begin an episode in every environment."""
        seen, _ = self.vector.reset(seed=self._seeds[0])
        self._reset_seeds()
        self._returns[:], self._lengths[:] = 0, 0
        return seen

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> tuple[Any, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Take one decision in every environment."""
        seen, reward, terminated, truncated, info = self.vector.step(self._actions)
        self._returns += reward
        self._lengths += 1
        over = terminated | truncated
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i in np.flatnonzero(over):
            figures = {name: x[i] for name, x in info["final_info"].items() if not name.startswith("_")}
            infos[i] = figures | {
                "terminal_observation": info["final_obs"][i],
                "TimeLimit.truncated": bool(truncated[i] and not terminated[i]),
                "episode": {"r": self._returns[i], "l": int(self._lengths[i]), "t": time.time() - self._began},
            }
        self._returns[over], self._lengths[over] = 0, 0
        return seen, reward, over, infos

    def close(self) -> None:
        """Close the environments."""
        self.vector.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Return an attribute, which is the same for all environments."""
        return [getattr(self.vector, attr_name, None)] * len(self._chosen(indices))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Refuse: the environments are arrays, not objects."""
        raise NotImplementedError("the environments are arrays; make others with to_sb3(env)")

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Refuse: the environments are arrays, not objects."""
        raise NotImplementedError("the environments are arrays, without methods of their own")

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """Return False for each: none is wrapped."""
        return [False] * len(self._chosen(indices))

    def _chosen(self, indices: Any) -> list[int]:
        return list(self._get_indices(indices))
