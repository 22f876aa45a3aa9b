"""Text from files, as people may be shown it. It has no other imports, so every module of the package can use it."""


def printable(text: str) -> str:
    """Return a text with a space for each character that a terminal, a browser or an editor would act on.

    These are control characters and line ends, and the invisible characters that turn the direction of writing.
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else " " for letter in text)


def shown(value: object, most: int = 40) -> str:
    """Return a value from a file as a message shows it: in one line, printable, and cut where it is long."""
    text = str(value)
    return printable(text[:most]) + "..." * (len(text) > most)
