"""Learners and policies: PPO, its encoders, heads and distributions, advantages, policy files."""
