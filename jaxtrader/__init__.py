"""jaxtrader trains reinforcement-learning trading agents in JAX, with exact money.

The public names stand here and load on first use (PEP 562): `import jaxtrader` imports neither JAX nor pandas.
"""

from importlib import import_module

from jaxtrader.aliases import install

TYPE_CHECKING = False  # Type checkers take it for true. `typing` takes longer to load than all of this.
if TYPE_CHECKING:
    from jaxtrader import checks
    from jaxtrader.agents.policy_loading import load_policy
    from jaxtrader.agents.ppo import PPOAgent
    from jaxtrader.agents.protocol import Agent, MarketAgent, Rollout
    from jaxtrader.bridges import gymnasium
    from jaxtrader.bridges.gymnasium_envs import to_gymnasium
    from jaxtrader.envs import rewards
    from jaxtrader.envs.trading import TradingEnv
    from jaxtrader.evaluation import optimum
    from jaxtrader.evaluation.backtest import backtest
    from jaxtrader.evaluation.result import BacktestResult
    from jaxtrader.evaluation.simulate import simulate
    from jaxtrader.files import FileError
    from jaxtrader.ledger.costs import Costs
    from jaxtrader.ledger.rules import Rules
    from jaxtrader.market import datasets, features
    from jaxtrader.market.bars import Bars, load_bars
    from jaxtrader.market.datasets import load_bundled
    from jaxtrader.market.errors import DataError
    from jaxtrader.market.folds import walk_forward_folds
    from jaxtrader.market.market import Market
    from jaxtrader.training import loggers
    from jaxtrader.training.callbacks import Callback, EarlyStopping
    from jaxtrader.training.sweep import sweep
    from jaxtrader.training.train_result import TrainingDiverged, TrainResult
    from jaxtrader.training.trainer import Trainer
    from jaxtrader.training.walk_forward import walk_forward

__version__ = "0.1.0"

__all__ = [
    "Agent",
    "BacktestResult",
    "BacktestResults",
    "Bars",
    "Callback",
    "Costs",
    "DataError",
    "EarlyStopping",
    "FileError",
    "Market",
    "MarketAgent",
    "PPOAgent",
    "Rollout",
    "Rules",
    "TradingEnv",
    "TrainResult",
    "Trainer",
    "TrainingDiverged",
    "__version__",
    "backtest",
    "checks",
    "datasets",
    "features",
    "gymnasium",
    "load_bars",
    "load_bundled",
    "load_policy",
    "loggers",
    "optimum",
    "rewards",
    "simulate",
    "sweep",
    "to_gymnasium",
    "walk_forward",
    "walk_forward_folds",
]

# Where each name lives. A name without an attribute is the module itself.
_HOMES = {
    "Agent": "jaxtrader.agents.protocol:Agent",
    "MarketAgent": "jaxtrader.agents.protocol:MarketAgent",
    "Rollout": "jaxtrader.agents.protocol:Rollout",
    "Bars": "jaxtrader.market.bars:Bars",
    "BacktestResult": "jaxtrader.evaluation.result:BacktestResult",
    "BacktestResults": "jaxtrader.evaluation.result:BacktestResults",
    "Callback": "jaxtrader.training.callbacks:Callback",
    "Costs": "jaxtrader.ledger.costs:Costs",
    "DataError": "jaxtrader.market.errors:DataError",
    "EarlyStopping": "jaxtrader.training.callbacks:EarlyStopping",
    "FileError": "jaxtrader.files:FileError",
    "Market": "jaxtrader.market.market:Market",
    "Rules": "jaxtrader.ledger.rules:Rules",
    "PPOAgent": "jaxtrader.agents.ppo:PPOAgent",
    "TradingEnv": "jaxtrader.envs.trading:TradingEnv",
    "TrainResult": "jaxtrader.training.train_result:TrainResult",
    "Trainer": "jaxtrader.training.trainer:Trainer",
    "TrainingDiverged": "jaxtrader.training.train_result:TrainingDiverged",
    "backtest": "jaxtrader.evaluation.backtest:backtest",
    "datasets": "jaxtrader.market.datasets",
    "checks": "jaxtrader.checks",
    "features": "jaxtrader.market.features",
    "gymnasium": "jaxtrader.bridges.gymnasium",
    "load_bars": "jaxtrader.market.bars:load_bars",
    "load_bundled": "jaxtrader.market.datasets:load_bundled",
    "load_policy": "jaxtrader.agents.policy_loading:load_policy",
    "loggers": "jaxtrader.training.loggers",
    "optimum": "jaxtrader.evaluation.optimum",
    "rewards": "jaxtrader.envs.rewards",
    "simulate": "jaxtrader.evaluation.simulate:simulate",
    "sweep": "jaxtrader.training.sweep:sweep",
    "to_gymnasium": "jaxtrader.bridges.gymnasium_envs:to_gymnasium",
    "walk_forward": "jaxtrader.training.walk_forward:walk_forward",
    "walk_forward_folds": "jaxtrader.market.folds:walk_forward_folds",
}

# `import jaxtrader.rewards` works as `jaxtrader.rewards` does. `checks` is a folder of that name and needs no alias.
install({f"{__name__}.{name}": home for name, home in _HOMES.items() if ":" not in home and name != "checks"})


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'jaxtrader' has no attribute {name!r}; it has {', '.join(__all__)}")
    module, _, attribute = _HOMES[name].partition(":")
    value = import_module(module)
    value = getattr(value, attribute) if attribute else value
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
