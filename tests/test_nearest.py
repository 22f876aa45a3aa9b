"""The name that is meant by a word that is none."""

from __future__ import annotations

import pytest

from jaxtrader.nearest import hint, nearest

FLAGS = ("fee-bps", "fixed-fee", "leverage", "learning-rate", "lot", "positions", "num-envs", "seed", "symbols")


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("Seed", "seed"),
        ("learning_rate", "learning-rate"),
        ("lr", "learning-rate"),
        ("position", "positions"),
        ("fee", "fee-bps"),
        ("fixed", "fixed-fee"),
        ("rate", "learning-rate"),
        ("seeds", "seed"),
        ("levrage", "leverage"),
        ("tickers", "symbols"),
        ("learning-speed", "learning-rate"),
        ("valid-rate", None),
        ("frobnicate", None),
        ("", None),
    ],
)
def test_a_word_finds_the_name_that_is_meant(word: str, name: str | None) -> None:
    assert nearest(word, FLAGS, {"tickers": "symbols"}) == name


def test_names_in_other_letters_are_found_first() -> None:
    assert nearest("aapl", ["AA", "AAPL"]) == "AAPL"
    assert hint("Signal", ["noise", "signal"]) == "; did you mean signal?"
    assert hint("Signal", ["x"]) == ""


def test_a_synonym_of_a_name_that_is_not_there_is_none() -> None:
    assert nearest("tickers", ["seed"], {"tickers": "symbols"}) is None
