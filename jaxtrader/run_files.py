"""The names of the files in a run folder, and of a figure in them, in one place for all who write and read them."""

from __future__ import annotations

POLICY = "policy.pkl"  # the best policy on validation, or the last one
TRAINED = "trained.pkl"  # what was trained, where POLICY holds its mean exposure instead
LAST = "last.pkl"  # the last policy
START = "start.pkl"  # a copy of the policy that the run started from, where that is an earlier one
NEWEST, PREVIOUS, BEST = CHECKPOINTS = ("checkpoint.pkl", "checkpoint.previous.pkl", "checkpoint.best.pkl")
BACK = "checkpoint.back.pkl"  # to which on_divergence="halve" goes back
CONFIG_JSON = "config.json"  # the settings, and on what the run was made
METRICS = "metrics.jsonl"  # the records of the training
SCORE = "valid_reward_per_bar"  # the figure of a validation in these records
CONFIG_TOML = "config.toml"  # the settings of the command, where the run began with one
RESULT = "result.json"  # the result of the command's test
WALK_FORWARD = "walk-forward.json"  # how the folds of a walk-forward begin
SWEEP = "sweep.json"  # the configurations of a sweep
SWEEP_TABLE = "sweep.csv"  # their figures
