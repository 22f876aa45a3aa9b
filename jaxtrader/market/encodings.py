"""Tells the encoding of a text file: UTF-8, UTF-16, GBK or cp1252."""

import codecs
import re

# By their byte order marks. A file without one has NULs at every other place where its text is in a Latin script.
MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
HIGH_BYTES = re.compile(rb"[\x80-\xff]+")


def encoding_of(sample: bytes) -> str | None:
    """Return the encoding of text whose beginning, or whose lines beyond ASCII, are `sample`. None if it is binary.

    GBK writes its characters in pairs of high bytes, so that runs of them are even. In cp1252 they are single accents.
    """
    for mark, name in MARKS:
        if sample.startswith(mark):
            return name
    if b"\0" in sample:
        even, odd = sample[:4096:2], sample[1:4096:2]
        for name, zeros, others in (("utf-16-le", odd, even), ("utf-16-be", even, odd)):
            if zeros.count(0) > 0.4 * len(zeros) and others.count(0) < 0.1 * len(others):
                return name
        return None
    if _decodes(sample, "utf-8"):
        return "utf-8"
    runs = HIGH_BYTES.findall(sample)
    pairs = sum(len(run) for run in runs if len(run) % 2 == 0)
    if pairs > 0.9 * sum(map(len, runs)) and _decodes(sample, "gb18030"):
        return "gb18030"
    return "cp1252" if _decodes(sample, "cp1252") and len(b"".join(runs)) < 0.3 * len(sample) else None


def _decodes(sample: bytes, encoding: str) -> bool:
    """Whether the sample is text in an encoding. It may end within a character."""
    try:
        codecs.getincrementaldecoder(encoding)().decode(sample)
    except UnicodeDecodeError:
        return False
    return True
