"""Training that starts from an earlier policy: whether it fits, and what is remembered of it."""

from __future__ import annotations

from typing import Any

import jax

from jaxtrader.agents.policy import Policy
from jaxtrader.agents.protocol import Agent
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.jax_settings import package_settings


@package_settings()
def check_earlier(policy: Policy, env: Any, agent: Agent, seeds: int) -> None:
    """Raise ValueError where a training cannot start from an earlier policy. The message names what differs.

    Of an ensemble, each seed starts from its own member.
    """
    if not isinstance(env, TradingEnv):
        raise ValueError("init_from needs a TradingEnv; leave it out")
    members = policy.members
    if len(members) not in (1, seeds):
        raise ValueError(
            f"the policy is an ensemble of {len(members)}, and seeds is {seeds}; give as many seeds, or one of its "
            "members"
        )
    policy = members[0]
    needed = {
        "features": (policy.features, env.market.feature_names),
        "positions": (policy.positions, env.positions),
        "account features": (policy.account_names, env.account_names),
        "max_leverage": (policy.rules.max_leverage, env.rules.max_leverage),
    }
    for name, (before, now) in needed.items():
        if before != now:
            raise ValueError(
                f"the policy was trained on the {name} {_listed(before)}, and this training has {_listed(now)}; "
                "give what the policy has, or leave out init_from"
            )
    fresh = jax.eval_shape(lambda key: agent.init(key, env, env.default_params), jax.random.key(0))
    agent.start_from(fresh, policy.state, keep_scale=True)


def origin(policy: Policy) -> dict[str, Any]:
    """Return what a policy says of itself, for the files of a training that starts from it."""
    return {name: policy.about[name] for name in ("updates", "symbols", "data", "training") if name in policy.about}


def _listed(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
