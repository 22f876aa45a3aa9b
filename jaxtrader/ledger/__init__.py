"""The account and its rules: one ledger for training, validation, backtest and `simulate`. See its README."""
