"""What a policy or a path of targets earned: simulate, backtest, books, metrics, baselines, report."""
