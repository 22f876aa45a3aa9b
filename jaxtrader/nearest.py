"""The name that somebody probably meant, for messages about an unknown one. It needs the standard library alone."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

SIMILAR = 0.7  # of 1 for the same letters: `lst` is near to no encoder, and `valid-start` not to `random-start`
NO_SYNONYMS: Mapping[str, str] = MappingProxyType({})


def nearest(word: str, names: Iterable[str], synonyms: Mapping[str, str] = NO_SYNONYMS) -> str | None:
    """Return the name that is meant by a word, or None where none is near.

    Case, hyphens and underscores do not count. These are tried in turn: the same name, the name of which the word is a
    synonym, one that begins with the word, and one that has it as a part. Then come one that the word begins with, the
    name with these initials, the most similar one, one with a part that is similar, and the one name that has the first
    of several words. Of several the first counts.

    Args:
        word: what was written.
        names: what there is.
        synonyms: names, by other words for them in small letters without hyphens and underscores.
    """
    plain, spelt = _plain(word), {}
    for name in names:
        spelt.setdefault(_plain(name), name)
    if plain in spelt:
        return spelt[plain]
    if synonyms.get(plain) in spelt.values():
        return synonyms[plain]
    if len(plain) >= 3:
        for is_near in (
            lambda name: name.startswith(plain),
            lambda name: plain in map(_plain, re.split(r"[-_ ]", spelt[name])),
            lambda name: len(name) >= 3 and plain.startswith(name),
        ):
            if found := list(filter(is_near, spelt)):
                return spelt[found[0]]
    initials = {"".join(part[0] for part in re.findall(r"[a-z0-9]+", name.lower())): name for name in spelt.values()}
    if len(plain) >= 2 and plain in initials:
        return initials[plain]
    similar = difflib.get_close_matches(plain, spelt, n=1, cutoff=SIMILAR)
    if similar:
        return spelt[similar[0]]
    parts = {part: name for name in reversed(spelt.values()) for part in _words(name)}
    if len(plain) > 3 and (similar := difflib.get_close_matches(plain, parts, n=1, cutoff=SIMILAR)):
        return parts[similar[0]]
    first, *more = _words(word)
    sharing = [name for name in spelt.values() if more and first in _words(name)[:1]]
    return sharing[0] if len(first) >= 3 and len(sharing) == 1 else None


def hint(word: str, names: Iterable[str]) -> str:
    """Return "; did you mean NAME?" for the end of a sentence, or nothing where no name is near."""
    name = nearest(word, names)
    return "" if name is None else f"; did you mean {name}?"


def _words(name: str) -> list[str]:
    return re.split(r"[-_ ]+", name.strip("-_ ").lower())


def _plain(name: str) -> str:
    return re.sub(r"[-_ ]", "", name).lower()
