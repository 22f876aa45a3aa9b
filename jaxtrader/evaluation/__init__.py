"""What a policy or a path of targets earned: simulate, backtest, results, metrics, baselines, report."""
