"""The training loop: rollouts, chunks of updates, the Trainer, its logs, validation and checkpoints."""
