"""Market data on the host and its tape on the device: loading, checks, features, splits, the embedded stocks."""
