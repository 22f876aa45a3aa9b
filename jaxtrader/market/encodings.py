"""Tells the encoding of a text file: UTF-8, UTF-16, GBK, Big5, Shift-JIS, CP949 or cp1252."""

import codecs
import re

from jaxtrader.market.columns import NAMES

# By their byte order marks. A file without one has NULs at every other place where its text is in a Latin script.
MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
HIGH_BYTES = re.compile(rb"[\x80-\xff]+")
ASIAN = ("gb18030", "cp950", "cp932", "cp949")  # Chinese (GBK and Big5), Japanese (Shift-JIS) and Korean
FOREIGN_NAMES = tuple(name for name in NAMES if not name.isascii() and len(name) > 1)  # of columns
KANA, HANGUL = re.compile(r"[\u3040-\u30ff]"), re.compile(r"[\uac00-\ud7a3]")
MOSTLY = 0.9


def encoding_of(sample: bytes) -> str | None:
    """Return the encoding of text whose beginning, or whose lines beyond ASCII, are `sample`. None if it is binary.

    The encodings of Chinese, Japanese and Korean text share their bytes. Names of columns tell them apart, or else the
    scripts. In cp1252 high bytes are single accents.
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
    if asian := _asian(sample):
        return asian
    high = len(b"".join(HIGH_BYTES.findall(sample)))
    return "cp1252" if _decodes(sample, "cp1252") and high < 0.3 * len(sample) else None


def _asian(sample: bytes) -> str | None:
    """Return the encoding of Chinese, Japanese or Korean text, or None."""
    texts = {name: sample.decode(name, errors="ignore") for name in ASIAN if _decodes(sample, name)}
    named = {name: sum(each in text for each in FOREIGN_NAMES) for name, text in texts.items()}
    if named and max(named.values()) >= 2:
        return max(named, key=named.__getitem__)
    foreign = {name: max(1, sum(not letter.isascii() for letter in text)) for name, text in texts.items()}
    if "cp932" in texts and len(KANA.findall(texts["cp932"])) > 0.2 * foreign["cp932"]:
        return "cp932"
    hangul = HANGUL.findall(texts.get("cp949", ""))  # a name of two Chinese characters may look like Korean
    if len(set(hangul)) > 3 and len(hangul) > MOSTLY * foreign["cp949"]:
        return "cp949"
    # GBK writes its characters in pairs of high bytes, so that runs of them are even.
    runs = HIGH_BYTES.findall(sample)
    pairs = sum(len(run) for run in runs if len(run) % 2 == 0)
    return "gb18030" if "gb18030" in texts and pairs > MOSTLY * sum(map(len, runs)) else None


def _decodes(sample: bytes, encoding: str) -> bool:
    """Whether the sample is text in an encoding. It may end within a character."""
    try:
        codecs.getincrementaldecoder(encoding)().decode(sample)
    except UnicodeDecodeError:
        return False
    return True
