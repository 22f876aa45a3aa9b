"""`jaxtrader train --distributed`: this process trains together with others, by JAX's own distributed runtime."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import dataclasses
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, cast

import jax

from jaxtrader import hosts
from jaxtrader.cli.command_settings import HostSettings
from jaxtrader.cli.inputs import Values, checked
from jaxtrader.cli.settings import BAD_INPUT, FAILED, INTERRUPTED, BadInput, build
from jaxtrader.setting_checks import check_whole, setting
from jaxtrader.terminal import Output

CONNECT_SECONDS = 60  # in which all processes must come together
HEARTBEAT_SECONDS = 30  # without a sign of life, after which a process is lost
REPORT_SECONDS = 3600  # for which the others wait at the end, while process 0 writes the report
OF_OTHERS = ("Gloo", "NCCL", "coordination", "UNAVAILABLE")  # in errors of a program that waits for another process
MOST_PROCESSES = 2**31  # what an int of JAX's runtime counts
PATIENCE = 5.0  # in which the others may fail in the same way, before a process that failed leaves them

_NEEDS = "give --coordinator HOST:PORT of process 0, --num-processes and --process-id"
_abort_code = FAILED
_folder: Path | None = None  # of the run, where this process knows it
_handler: Any = None  # C calls it, so it must live


@contextlib.contextmanager
def joined(values: dict[str, Any]) -> Generator[None]:
    """Join the other processes where the settings ask for it, and leave them at the end.

    It must come before anything else touches a device. `values` get the number of all devices. Processes other than 0
    show nothing from here on.

    Raises:
        BadInput: the processes cannot come together.
    Where another process is lost, this one says so and ends.
    """
    settings = build(HostSettings, values)
    _check(settings, values)
    if not settings.distributed:
        yield
        return
    restore = _through_last_words(settings)
    code = BAD_INPUT
    try:
        _join(settings)
        hosts.meet()
        code = FAILED
        _take_devices(values)
        with _silent(unless=hosts.is_first()):
            yield
        jax.distributed.shutdown()  # waits for the others
        restore()
    except BaseException as error:
        code = BAD_INPUT if isinstance(error, BadInput) else code
        code = INTERRUPTED if isinstance(error, KeyboardInterrupt) else code
        if isinstance(error, jax.errors.JaxRuntimeError) and any(word in str(error) for word in OF_OTHERS):
            os.write(2, b"\1\n")  # JAX may say the same at this moment
            restore()
            os._exit(FAILED)
        _tell("")  # this process says itself what happened
        atexit.register(_leave, code, restore)  # comes before JAX's own, which would wait for the others
        raise


def name_folder(folder: Path) -> None:
    """Have the message of a lost process name the run folder."""
    global _folder
    _folder = folder
    _tell(_lost())


def _check(settings: HostSettings, values: Values) -> None:
    """Raise BadInput where the settings are wrong by themselves."""
    given = [field.name for field in dataclasses.fields(settings) if getattr(settings, field.name) is not None]
    if not settings.distributed:
        if len(given) > 1:
            raise BadInput(f"{setting(given[1])} needs `distributed`")
        return
    if values["dry_run"]:
        raise BadInput("`dry_run` runs in one process: leave out `distributed`")
    address, count, index = settings.coordinator, settings.num_processes, settings.process_id
    if address is not None:
        host, _, port = address.rpartition(":")
        if not (host and port.isdecimal() and 0 < int(port) < 2**16):
            raise BadInput(f"{setting('coordinator', address)} is no HOST:PORT, such as 10.0.0.1:1234")
    with checked():
        if count is not None:
            check_whole("num_processes", count)
        if index is not None:
            check_whole("process_id", index, 0, MOST_PROCESSES - 1 if count is None else count - 1)


def _join(settings: HostSettings) -> None:
    global _abort_code
    _abort_code = BAD_INPUT
    if settings.coordinator is not None and settings.process_id:
        wait_for(settings.coordinator, CONNECT_SECONDS)
    if settings.coordinator is not None and settings.process_id == 0:
        _check_port(settings.coordinator)
    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM
    try:
        jax.distributed.initialize(
            settings.coordinator,
            settings.num_processes,
            settings.process_id,
            initialization_timeout=CONNECT_SECONDS,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=REPORT_SECONDS,
        )
    except ValueError as error:
        raise BadInput(
            f"`distributed` finds no Slurm, Open MPI, Kubernetes or TPU pod that tells the processes: {_NEEDS}"
        ) from error
    except (RuntimeError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(
            f"`distributed`: JAX cannot join the processes ({reason}); try another port, or {_NEEDS}"
        ) from error
    _abort_code = FAILED


def _check_port(address: str) -> None:
    """Raise BadInput where another process listens at the port of `HOST:PORT`. JAX may crash there."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("", int(address.rpartition(":")[2])))
            listener.listen()
        except OSError as error:
            raise BadInput(
                f"{setting('coordinator', address)}: process 0 cannot listen at this port; give another one"
            ) from error


def wait_for(address: str, seconds: float) -> None:
    """Return when something listens at `HOST:PORT`. Raises BadInput where nothing does within so many seconds."""
    host, _, port = address.rpartition(":")
    until = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=max(until - time.monotonic(), 0.1)).close()
        except OSError as error:
            if time.monotonic() > until:
                raise BadInput(
                    f"{setting('coordinator', address)} does not answer within {seconds:g} s "
                    f"({error.strerror or error}): start process 0 there, or check the address and the firewall"
                ) from error
            time.sleep(0.2)
        else:
            return


def _take_devices(values: dict[str, Any]) -> None:
    """Train on all devices of all processes. Raises BadInput where another number was asked for."""
    count = jax.device_count()
    if values["resume"] is None and values["devices"] not in (1, count):
        raise BadInput(
            f"{setting('devices', values['devices'])}: `distributed` trains on all {count} devices of its "
            f"{hosts.count()} processes; leave it out"
        )
    values["devices"] = count
    if not hosts.is_first():
        values.update(quiet=True, run_dir=None, log_to=None)


@contextlib.contextmanager
def _silent(unless: bool) -> Generator[None]:
    """Drop what is printed, and warnings."""
    if unless:
        yield
        return
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        warnings.catch_warnings(action="ignore"),
    ):
        yield


# --- the end ---


def _lost() -> str:
    folder = "RUN" if _folder is None else _folder
    return f"another process of this training is lost, so this one ends: start all again with --resume {folder}"


def _not_joined(settings: HostSettings) -> str:
    all_of_them = "all processes" if settings.num_processes is None else f"all {settings.num_processes} processes"
    return (
        f"not {all_of_them} came together within {CONNECT_SECONDS} s: start the others too, with the same "
        "--coordinator and --num-processes, and check the firewall"
    )


def _through_last_words(settings: HostSettings) -> Callable[[], None]:
    """Let what C++ prints go through `last_words.py`, and let an abort be an exit. Return what undoes it.

    Python's own streams go where they went.
    """
    global _handler
    if os.name == "nt":  # no pipes to wait for, and no SIGABRT to take
        return lambda: None
    script = Path(__file__).with_name("last_words.py")
    command = [sys.executable, "-I", str(script), _not_joined(settings), _lost()]
    copier = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
    assert copier.stdin is not None
    kept = {number: os.dup(number) for number in (1, 2)}
    streams = {1: sys.stdout, 2: sys.stderr}
    before = {}
    for number, stream in streams.items():
        if isinstance(stream, Output) and stream.stream is not None:
            stream.flush()
            before[number] = was = stream.stream
            stream.stream = open(kept[number], "w", 1, was.encoding, was.errors, closefd=False)  # noqa: SIM115
        os.dup2(copier.stdin.fileno(), number)
    copier.stdin.close()
    # A signal handler of Python would not run: the process is aborted inside C++.
    _handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(_exit_at_abort)
    ctypes.CDLL(None).signal(signal.SIGABRT, _handler)

    def restore() -> None:
        for number, stream in streams.items():
            stream.flush()
            os.dup2(kept[number], number)
            if number in before:
                cast(Output, stream).stream = before[number]
        with contextlib.suppress(subprocess.TimeoutExpired):
            copier.wait(timeout=2)  # until it has copied all

    return restore


def _exit_at_abort(_: int) -> None:
    for folder in hosts.scratch:
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(_abort_code)


def _tell(sentence: str) -> None:
    """Have this sentence printed where JAX ends the process."""
    os.write(2, b"\0" + sentence.encode() + b"\n")


def _leave(code: int, restore: Callable[[], None]) -> None:
    """End a process that failed. The others either fail as well, or find that it is gone."""
    leaving = threading.Thread(target=jax.distributed.shutdown, daemon=True)
    leaving.start()
    leaving.join(PATIENCE)
    with contextlib.suppress(OSError, ValueError):
        restore()
    os._exit(code)
