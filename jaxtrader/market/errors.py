"""The error that market data raise. It has no other imports, so every module of the package can use it."""


class DataError(ValueError):
    """Market data that cannot be used. The message is one sentence that names the value and the way out."""
