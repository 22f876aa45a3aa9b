"""Bridges to other libraries: our environments as those of Gymnasium and Stable-Baselines3."""
