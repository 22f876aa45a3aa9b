"""metrics_log.py: every line is JSON, whatever the values are and whenever a run ended."""

import json
import math
import os
from pathlib import Path

import pytest

from jaxtrader.files import FileError
from jaxtrader.training.metrics_log import JsonlLogger, read_records
from jaxtrader.training.run_folder import is_written, only_writer

WHOLE = b'{"updates": 1, "steps": 8, "episodes": 0, "loss": null}\n'
NO_RECORDS = {
    "a list": b"[1,2]\n",
    "half a line": b'{"updates"',
    "deep": b"[" * 200_000 + b"\n",
    "no UTF-8": b'{"a": "\xff"}\n',
    "a long integer": b'{"a": ' + b"9" * 5000 + b"}\n",
    "no counts": b"{}\n",
    "a text for a score": WHOLE.replace(b'"loss": null', b'"valid_reward_per_bar": "x"'),
    "a text for a count": WHOLE.replace(b"8", b'"8"'),
}


def lines_of(path: Path) -> list:
    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    text = path.read_text(encoding="utf-8")
    assert text.endswith("\n")
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def test_numbers_that_are_not_finite_are_null(tmp_path):
    with JsonlLogger(tmp_path / "metrics.jsonl") as log:
        log.write({"count": 2**60, "loss": 0.1, "nan": math.nan, "inf": math.inf, "-inf": -math.inf, "none": None})
    (back,) = lines_of(tmp_path / "metrics.jsonl")
    assert back == {"count": 2**60, "loss": 0.1, "nan": None, "inf": None, "-inf": None, "none": None}
    assert type(back["count"]) is int


def test_each_record_is_there_before_the_next(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with JsonlLogger(path) as log:
        for i in range(3):
            log.write({"i": i})
            assert [record["i"] for record in lines_of(path)] == list(range(i + 1))
    with JsonlLogger(path) as log:
        log.write({"i": 3})
    assert [record["i"] for record in lines_of(path)] == [0, 1, 2, 3]


def test_a_line_cut_off_by_a_crash_spoils_no_other(tmp_path):
    path = tmp_path / "m"
    path.write_text('{"i": 0}\n{"i": 1, "los')
    with JsonlLogger(path) as log:
        log.write({"i": 2})
    assert path.read_text() == '{"i": 0}\n{"i": 1, "los\n{"i": 2}\n'


def test_a_folder_is_no_place_for_a_log(tmp_path):
    with pytest.raises(ValueError, match=r"is no log of a run.*choose another place"):
        JsonlLogger(tmp_path)


@pytest.mark.parametrize("kind", NO_RECORDS)
def test_lines_that_are_no_records_are_damage_and_are_not_cut(tmp_path, kind):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(WHOLE + NO_RECORDS[kind])
    with pytest.raises(FileError, match=r"metrics\.jsonl is damaged: line 2 is no record"):
        read_records(path)
    content = path.read_bytes()
    with JsonlLogger(path) as log, pytest.raises(FileError, match="is damaged"):
        log.cut(len(content))
    assert path.read_bytes().startswith(content)
    with JsonlLogger(path) as log:
        (record,) = log.cut(len(WHOLE))
    assert math.isnan(record.pop("loss"))
    assert record == {"updates": 1, "steps": 8, "episodes": 0}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_in_the_place_of_a_log_is_refused_and_not_waited_for(tmp_path):
    path = tmp_path / "metrics.jsonl"
    os.mkfifo(path)
    for use in (
        JsonlLogger,
        read_records,
        lambda log: is_written(log.parent),
        lambda log: only_writer(log.parent).__enter__(),
    ):
        with pytest.raises(
            FileError, match=r"metrics\.jsonl' is no log of a run, but a folder, a pipe or a device; move it away"
        ):
            use(path)
