"""The account and the environment: ledger, costs, rewards, TradingEnv."""
