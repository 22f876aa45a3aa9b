"""The error that market data raise. It has no other imports, so every module of the package can use it."""


class DataError(ValueError):
    """Market data that cannot be used. The message is one sentence that names the value and the way out."""


def shown(value: object, most: int = 40) -> str:
    """A value from a file as a message shows it: in one line, without control characters, and cut where it is long."""
    text = str(value)
    line = "".join(letter if letter.isprintable() else " " for letter in text[:most])
    return line + "..." * (len(text) > most)
