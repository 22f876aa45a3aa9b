"""The error that market data raise. It has hardly any imports, so every module of the package can use it."""

from jaxtrader.printable import listed, printable, shown

__all__ = ["DataError", "listed", "shown"]


class DataError(ValueError):
    """Market data that cannot be used. The message is one printable sentence that names the value and the way out.

    Example:
        >>> import pandas as pd
        >>> try:
        ...     jt.load_bars(pd.DataFrame({"price": [1.0]}))
        ... except jt.DataError as error:
        ...     print(error)
        DataFrame has no column for time and open and high and low; it has price: ...
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def no_bars(source: str) -> DataError:
    """The error of a table that has nothing below its header."""
    return DataError(f"{source} has a header but no bars; add one row for each bar")
