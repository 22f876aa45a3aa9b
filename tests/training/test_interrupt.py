"""interrupt.py: which signals ask a training to stop, and what the second one does."""

import dataclasses
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from trainers import called_back

import jaxtrader
from jaxtrader.training.callbacks import Callback
from jaxtrader.training.interrupt import SIGNALS, STOPPING, stop_on_signals

ROOT = Path(jaxtrader.__file__).parents[1]


@pytest.fixture(autouse=True)
def defaults():
    """As in a terminal, whatever ignores signals around the tests."""
    before = {each: signal.signal(each, signal.SIG_DFL) for each in SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_asks_to_stop_and_the_second_interrupts(number):
    told = threading.Event()
    said = []

    def second():
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(10)

    with stop_on_signals(lambda text: (said.append(text), told.set())) as stop:
        assert not stop.is_set()
        os.kill(os.getpid(), number)
        assert told.wait(10)
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            second()
    assert said == [STOPPING]
    expected = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    assert signal.getsignal(number) is expected


def test_a_block_inside_another_has_its_event_and_tells_by_itself():
    said = []
    told = threading.Event()
    with stop_on_signals(said.append) as outer:
        with stop_on_signals(lambda text: (said.append("inner"), told.set())) as stop:
            assert stop is outer
            os.kill(os.getpid(), signal.SIGTERM)
            assert told.wait(10)
        assert said == ["inner"]
        with stop_on_signals(print) as following:
            assert following.is_set(), "a signal that came too late for one training stops the next"
    with stop_on_signals(print) as later:
        assert not later.is_set()


def test_a_training_that_was_at_its_end_says_that_it_is_complete(tmp_path, capsys):
    class AtTheEnd(Callback):
        def on_end(self, result):
            signal.raise_signal(signal.SIGTERM)

    trainer = dataclasses.replace(called_back(tmp_path / "run", AtTheEnd(), total_steps=80), progress=True)
    assert not trainer.train().interrupted
    assert "this training is complete" in capsys.readouterr().out


def test_what_is_ignored_and_what_the_user_handles_stay():
    heard = []
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, lambda number, frame: heard.append(number))
    with stop_on_signals(print) as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGUSR1)
        threading.Event().wait(0.05)
        assert heard == [signal.SIGUSR1]
        assert not stop.is_set()


def test_other_threads_hear_nothing():
    stops = []

    def run():
        with stop_on_signals(print) as stop:
            stops.append(stop.is_set())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert stops == [False]


def test_a_second_signal_ends_a_command_whose_main_thread_does_not_listen():
    """As where XLA compiles: Python's own handlers do not run before it returns."""
    code = """
        import hashlib, threading
        from jaxtrader.training import interrupt
        interrupt.PATIENCE = 0.1
        with interrupt.ending_the_process(), interrupt.stop_on_signals(lambda text: print("told", flush=True)):
            threading.Timer(0.5, lambda: print("ready", flush=True)).start()
            hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # many minutes, without Python's lock
    """
    code = "\n".join(line[8:] for line in code.splitlines())
    child = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    child.send_signal(signal.SIGTERM)
    assert child.stdout.readline() == "told\n"
    child.send_signal(signal.SIGTERM)
    assert child.wait(30) == 130
