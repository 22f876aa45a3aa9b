"""`jaxtrader train --distributed`: two processes on this machine against one, and what ends them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from cli.test_resuming import SHORT
from cli.tiny_runs import prices

import jaxtrader as jt
from jaxtrader import devices, hosts
from jaxtrader.cli import distributed, last_words, main
from jaxtrader.cli.settings import BadInput
from jaxtrader.training.identity import check_alike
from jaxtrader.training.train_settings import TrainSettings

# The command, with signs of life that are missed sooner, so that a test does not wait for half a minute, with
# checkpoints that process 0 alone finds due, and with as little judged as by `brief` of conftest.py.
COMMAND = """
import sys
from jaxtrader.cli import distributed, main
from jaxtrader.report import evidence
from jaxtrader.training import training_loop
evidence._stress, evidence._timing = (lambda *_: {}), (lambda *_: None)
evidence.permutation_importance = lambda *_, **__: None
distributed.HEARTBEAT_SECONDS = 5
training_loop.CHECKPOINT_SECONDS = 0.0 if sys.argv[-1] == "0" else 1e9
sys.exit(main(sys.argv[1:]))
"""
STEPS = "2560"  # 20 updates
NOTHING = "nothing tells the processes"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start(*argv: Any, second: tuple[str, ...] = ()) -> list[subprocess.Popen[str]]:
    """Two processes of a command, of which the second has flags of its own."""
    joined = ["--distributed", "--coordinator", f"127.0.0.1:{free_port()}", "--num-processes", "2", "--process-id"]
    command = [sys.executable, "-c", COMMAND, "train", *map(str, argv)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return [subprocess.Popen([*command, *second[: i * len(second)], *joined, str(i)], **pipes) for i in range(2)]


def end(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    """Exit code, output and messages of each."""
    try:
        told = [process.communicate(timeout=240) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *texts) for process, texts in zip(processes, told, strict=True)]


def parameters(run: Path) -> np.ndarray:
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(jt.load_policy(run / "last.pkl").state.params)])


@pytest.fixture(scope="module")
def bars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hosts") / "bars.csv"
    prices().to_csv(path, index=False)
    return path


@pytest.mark.slow
@pytest.mark.usefixtures("brief")
def test_two_processes_learn_what_one_learns(bars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """To 1e-5 after 20 updates. The first prints and writes, and one process goes on with the run."""
    argv = ["train", "--data", str(bars), *SHORT, "--no-report", "--total-steps", STEPS]
    assert main([*argv, "--run-dir", str(tmp_path / "one")]) == 0
    (code, out, messages), other = end(start(*argv[1:], "--run-dir", tmp_path / "two"))
    assert (code, other) == (0, (0, "", "")), messages
    assert "Gloo" not in out + messages
    assert f"{tmp_path / 'two'}" in out
    one, two = (parameters(tmp_path / name) for name in ("one", "two"))
    np.testing.assert_allclose(one, two, rtol=0, atol=1e-5)
    records = [[json.loads(line) for line in (tmp_path / name / "metrics.jsonl").open()] for name in ("one", "two")]
    for mine, theirs in zip(*records, strict=True):
        assert mine.keys() == theirs.keys()
        for name in mine.keys() - {"seconds", "compile_seconds", "steps_per_second"}:
            # Weights agree to 1e-5, and a metric is a difference of what they make.
            assert theirs[name] == pytest.approx(mine[name], rel=1e-3, abs=1e-5), name

    capsys.readouterr()
    longer = ["train", "--resume", str(tmp_path / "two"), "--total-steps", "2816", "--devices", "1"]
    assert main(longer) == 0
    assert "jaxtrader: warning: --devices was 2 and is 1" in capsys.readouterr().err
    assert json.loads((tmp_path / "two" / "metrics.jsonl").read_text().splitlines()[-1])["updates"] == 22


@pytest.mark.slow
def test_processes_that_would_train_something_else_are_refused_by_name(bars: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    flags = ("--fee-bps", "300", "--seed", "1", "--hidden", "4", "--total-steps", "256")
    ended = end(start("--data", bars, *SHORT, "--no-report", "--run-dir", run, second=flags))
    for code, _, messages in ended:
        assert code == 2, messages
        line = messages.splitlines()[-1]
        assert line.startswith("jaxtrader: error: the processes do not train the same: "), messages
        fee = "`env.costs.fee` is 0.0001 in process 0 and 0.03"
        for told in ("--seed is 0 in process 0 and 1 in process 1", fee, "--hidden is"):
            assert told in line
    assert not {path.suffix for path in run.iterdir()} & {".pkl"}


@pytest.mark.parametrize(
    ("theirs", "says"),
    [
        ({}, None),
        ({"total_steps": "5"}, "`total_steps` is 7 in process 0 and 5 in process 2"),
        ({"training bars": "b"}, "the training bars have other numbers"),
        ({"resume": "true"}, "`resume` is false in process 0 and true in process 2"),
        ({"init_from": '"0"'}, '`init_from` is null in process 0 and "0" in process 2'),
    ],
)
def test_all_settings_and_data_of_the_processes_are_compared(
    theirs: dict[str, str], says: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three, the last is unlike the others."""

    def gathered(mine: bytes) -> list[bytes]:
        return [mine, mine, json.dumps({**json.loads(mine), **theirs}).encode()]

    monkeypatch.setattr(hosts, "gather", gathered)
    known = {"training bars": "a"}
    with contextlib.nullcontext() if says is None else pytest.raises(hosts.UnlikeError, match=says):
        check_alike(TrainSettings(total_steps=7), known, None, resume=False)


@pytest.mark.slow
@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize(("index", "number"), [(0, signal.SIGKILL), (1, signal.SIGSTOP)])
def test_a_lost_process_ends_the_others_with_one_sentence(
    index: int, number: signal.Signals, bars: Path, tmp_path: Path
) -> None:
    """The coordinator is killed, or the other one hangs, which no closed connection tells.

    What the killed one has left goes on. One that ends by itself leaves what any training does.
    """
    run = tmp_path / "run"
    processes = start("--data", bars, *SHORT, "--no-report", "--total-steps", "25000000", "--run-dir", run)
    until = time.monotonic() + 200
    while not (run / "checkpoint.pkl").exists():
        assert time.monotonic() < until
        assert all(process.poll() is None for process in processes)
        time.sleep(0.2)
    processes[index].send_signal(number)
    ((code, _, messages),) = end([processes[1 - index]])
    processes[index].kill()  # it only hangs
    end([processes[index]])
    assert code == 1
    line = messages.splitlines()[-1]  # on a busy machine JAX's own lines may have waited too long for the end
    named = "RUN" if index == 0 else run
    assert line == f"jaxtrader: error: {distributed._lost().replace('RUN', str(named))}"

    if index == 0:
        done = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["updates"]
        assert main(["train", "--resume", str(run), "--total-steps", str((done + 2) * 128), "--devices", "1"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("way", [NOTHING, "a port in use"])
def test_processes_that_cannot_join_are_one_sentence(way: str, tmp_path: Path) -> None:
    clusters = ("SLURM_", "OMPI_", "KUBERNETES_", "TPU_", "JAX_COORDINATOR")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(clusters)}
    with socket.socket() as listener:
        listener.bind(("", 0))
        listener.listen()
        flags = ["--coordinator", f"127.0.0.1:{listener.getsockname()[1]}", "--num-processes", "2", "--process-id", "0"]
        command = [
            sys.executable,
            "-m",
            "jaxtrader",
            "train",
            "--quiet",
            "--distributed",
            *flags[: 6 * (way != NOTHING)],
        ]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    told = "process 0 cannot listen at this port; give another one"
    assert line.endswith("HOST:PORT of process 0, --num-processes and --process-id" if way == NOTHING else told)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--coordinator", "a:1"], "--coordinator needs --distributed"),
        (["--process-id", "0"], "--process-id needs --distributed"),
        (["--distributed", "--dry-run"], "--dry-run runs in one process: leave out --distributed"),
        (["--distributed", "--coordinator", "10.0.0.1"], "--coordinator 10.0.0.1 is no HOST:PORT"),
        (
            ["--distributed", "--num-processes", "2", "--process-id", "2"],
            "--process-id 2 must be a whole number, from 0",
        ),
        (["--distributed", "--num-processes", "0"], "--num-processes 0 must be a whole number, at least 1"),
    ],
)
def test_bad_input_is_one_sentence(flags: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--quiet", *flags]) == 2
    out, message = capsys.readouterr()
    assert out == ""
    (line,) = message.splitlines()
    assert says in line


def test_all_devices_of_all_processes_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """As process 1 of 2 would, with one device each: of this process JAX says so."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    given = {"devices": 1, "resume": None, "quiet": False, "run_dir": "runs/a", "log_to": ("wandb",)}
    distributed._take_devices(given)
    assert given == {"devices": 2, "resume": None, "quiet": True, "run_dir": None, "log_to": None}
    with pytest.raises(BadInput, match="`devices=3`: `distributed` trains on all 2 devices of its 2 processes; leave"):
        distributed._take_devices({**given, "devices": 3})
    distributed._take_devices(resumed := {**given, "devices": 3, "resume": "runs/a"})
    assert resumed["devices"] == 2
    with pytest.raises(ValueError, match="`devices=1` must be all 2 of the 2 processes, which train together"):
        devices.make_mesh(1)


def test_a_coordinator_that_does_not_answer_is_waited_for() -> None:
    port = free_port()
    with pytest.raises(
        BadInput, match=rf"127\.0\.0\.1:{port}'` does not answer within 0\.5 s .*: start process 0 there"
    ):
        distributed.wait_for(f"127.0.0.1:{port}", 0.5)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", port))
        listener.listen()
        distributed.wait_for(f"127.0.0.1:{port}", 5)


FATAL = (
    "F1130 18:54:40 client.h:80] Terminating process because the JAX distributed service detected fatal errors. Go\n"
)
CONNECTED = "[Gloo] Rank 1 is connected to 3 peer ranks. Expected number of connected peer ranks is : 3"
TASK = "E1130 18:54:40 coordination_service.cc:1549] the following error:\n1\n"


@pytest.mark.parametrize(
    ("printed", "shown"),
    [
        (
            f"a warning\n{CONNECTED}{CONNECTED}\n\n[Gloo] Rank 1\n is connected to 3\nand no end",
            "a warning\nand no end",
        ),
        (TASK + FATAL + "\n*** Check failure stack trace: ***\n    @ 0x7f\n", "jaxtrader: error: lost\n"),
        (FATAL + "\nRPC: /xla.coordination.CoordinationService/RegisterTask\n", "jaxtrader: error: not joined\n"),
        ("\0lost runs/a\n" + FATAL, "jaxtrader: error: lost runs/a\n"),
        ("\1\n" + TASK + FATAL, "jaxtrader: error: lost\n"),
        ("\0\n" + FATAL, ""),
        (TASK, TASK),
        (TASK + "\0\nit goes on\n", "it goes on\n"),
    ],
)
def test_the_last_words_of_a_process_are_one_sentence(printed: str, shown: str) -> None:
    command = [sys.executable, "-I", last_words.__file__, "not joined", "lost"]
    assert subprocess.run(command, input=printed, stderr=subprocess.PIPE, text=True).stderr == shown
