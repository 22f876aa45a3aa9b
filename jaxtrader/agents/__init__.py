"""Learners and policies: PPO, its network and distributions, advantages, policy files."""
