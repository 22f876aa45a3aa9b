"""terminal.py and the command's edges: no state of the terminal, and no reader that goes away, ends a command."""

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import jaxtrader
from jaxtrader import cli, terminal
from jaxtrader.cli import main
from jaxtrader.cli.settings import INTERRUPTED
from jaxtrader.training.progress import Progress

ROOT = Path(jaxtrader.__file__).parents[1]


class Broken(io.StringIO):
    """A stream that raises at the second write."""

    def __init__(self, error):
        super().__init__()
        self.error, self.writes = error, 0

    def write(self, text):
        self.writes += 1
        if self.writes > 1:
            raise self.error
        return super().write(text)


@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), OSError(28, "No space"), ValueError("closed")])
def test_what_cannot_be_printed_is_dropped_and_the_fault_kept(error):
    stream = Broken(error)
    out = terminal.console(stream)
    for i in range(3):
        out.print(f"line {i}")
    assert stream.getvalue() == "line 0\n"
    assert stream.writes == 2, "a broken stream is left alone"
    assert out.file.failure is error


def test_progress_goes_on_without_its_reader():
    progress = Progress(100, console=terminal.console(Broken(BrokenPipeError())))
    with progress:
        for done in range(0, 101, 10):
            progress.update(done, {"loss": 1.0})
            progress.print("a note")


def test_a_closed_standard_output_prints_nothing(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    terminal.console().print("text")
    with Progress(10) as progress:
        progress.update(10, {})


@pytest.mark.parametrize(
    ("encoding", "printed"), [("cp1252", "Zürich - ? …"), ("ascii", "Zu?rich - ? ..."), ("utf-8", "Zürich ─ 円 …")]
)
def test_an_encoding_without_a_character_gets_a_similar_one(encoding, printed):
    raw = io.BytesIO()
    out = terminal.console(io.TextIOWrapper(raw, encoding=encoding))
    out.print("Zürich ─ 円 …")
    out.file.flush()
    assert raw.getvalue().decode(encoding) == f"{printed}\n"


@pytest.mark.parametrize(("columns", "width"), [("0", 100), ("-3", 100), ("wide", 100), ("", 100), ("70", 70)])
def test_columns_that_are_no_width_are_as_none(monkeypatch, columns, width):
    monkeypatch.setenv("COLUMNS", columns)
    out = io.StringIO()
    terminal.console(out).print("word " * 100)
    lines = out.getvalue().splitlines()
    assert width - 5 <= max(map(len, lines)) <= width


def test_a_full_disk_under_standard_output_is_one_sentence(monkeypatch, capsys):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(["--version"]) == 1
        monkeypatch.undo()
    assert "standard output cannot be written: No space left on device" in capsys.readouterr().err


def test_a_reader_that_leaves_is_no_failure(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as gone:
        monkeypatch.setattr(sys, "stdout", gone)
        assert main(["--version"]) == 0
        monkeypatch.undo()


def test_closed_streams_are_opened_before_a_file_takes_their_numbers(tmp_path):
    code = f"import os; from jaxtrader import cli; cli.main(['--version']); os.open({str(tmp_path / 'f')!r}, 65)"
    code += "; os.write(1, b'lost'); os.write(2, b'lost')"
    command = f'"{sys.executable}" -c "$CODE" <&- >&- 2>&-'
    child = subprocess.run(["bash", "-c", command], cwd=ROOT, env={**os.environ, "CODE": code}, check=False)
    assert child.returncode == 0
    assert (tmp_path / "f").read_bytes() == b""


# --- signals outside of training ---


def test_the_command_loads_next_to_nothing_before_it_hears_ctrl_c():
    code = (
        "import sys, jaxtrader.cli; print(*{'typing', 'cyclopts', 'rich', 'numpy', 'dataclasses'} & set(sys.modules))"
    )
    child = subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert child.stdout.strip() == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_what_ends_a_process_is_heard_as_ctrl_c(number, monkeypatch, capsys):
    before = signal.getsignal(number)
    monkeypatch.setattr(cli, "_run", lambda argv: signal.raise_signal(number))
    assert main([]) == INTERRUPTED
    assert capsys.readouterr().err == "jaxtrader: interrupted\n"
    assert signal.getsignal(number) is before


def test_a_signal_is_kept_while_a_library_is_loaded_and_the_second_ends_the_process(monkeypatch):
    ended = []

    def load():
        with cli._ending_signals_interrupt(), cli._late_interrupt():
            signal.raise_signal(signal.SIGTERM)
            assert not ended
            signal.raise_signal(signal.SIGHUP)
            assert ended == [130]

    monkeypatch.setattr(os, "_exit", ended.append)
    with pytest.raises(KeyboardInterrupt):
        load()


def test_what_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with cli._ending_signals_interrupt(), cli._late_interrupt():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
