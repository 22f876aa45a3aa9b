"""The error that market data raise. It has hardly any imports, so every module of the package can use it."""

from jaxtrader.printable import shown

__all__ = ["DataError", "shown"]


class DataError(ValueError):
    """Market data that cannot be used. The message is one sentence that names the value and the way out."""
