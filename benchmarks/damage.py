"""Is a damaged or forged policy or checkpoint refused by name, for what it weighs?

Each byte of a policy file and of a checkpoint has a bit flipped, and each of their prefixes is read. Then come files
with a valid checksum whose content was made to cost. They hold integers that all have one hash, shapes of long
integers, millions of lists, or networks of a million layers. One is a pipe in place of a file, and one calls
`os.system`. The line: each is refused with its name, within 2 s of the processor and 1 GB.

    python benchmarks/damage.py [--quick]
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kills import tiny_trainer
from machine import arguments, parsed, report, resident, time_limit

import jaxtrader as jt
from jaxtrader import files
from jaxtrader.cli import main as jaxtrader
from jaxtrader.training.checkpoint import read_checkpoint

COLUMNS = ("what", "tries", "refused by name", "read", "other", "slowest, CPU s", "most memory, MiB")
LIMIT = 30  # seconds, after which a try is ended
HEADER = b"}(\x8c\x06format\x8c\x09jaxtrader\x8c\x07versionK\x01\x8c\x04kind\x8c\x06policy\x8c\x04tree"
Read = Callable[[Path], object]


class Tally:
    """Counts what became of the tries of one kind, with the slowest and the one that took the most memory."""

    def __init__(self, what: str) -> None:
        self.what, self.counts = what, Counter[str]()
        self.slowest = self.most = 0.0
        self.others: list[str] = []

    def attempt(self, read: Read, path: Path, what: str) -> None:
        """Read a file that should be refused."""
        outcome, before = "read", resident()
        _forget_peak()
        began = time.process_time()
        try:
            with time_limit(LIMIT):
                read(path)
        except files.FileError as error:
            outcome = "refused" if path.name in str(error) and "\n" not in str(error) else "other"
        except BaseException as error:
            outcome = f"other {type(error).__name__}"
        self.slowest = max(self.slowest, time.process_time() - began)
        self.most = max(self.most, resident("VmHWM") - before)
        self.counts[outcome.split()[0]] += 1
        if outcome != "refused":
            self.others.append(f"{self.what}, {what}: {outcome}")

    def row(self) -> list[Any]:
        """The row of the table."""
        counts = [self.counts[name] for name in ("refused", "read", "other")]
        return [self.what, self.counts.total(), *counts, round(self.slowest, 3), round(self.most)]


def _forget_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def regions(sound: Path, read: Read, step: int) -> Iterator[Tally]:
    """A bit of each byte is flipped, and each prefix is read. `step` leaves bytes out."""
    data, path = sound.read_bytes(), sound.with_name(f"damaged-{sound.name}")
    flips, cuts = Tally(f"{sound.name}: bits flipped"), Tally(f"{sound.name}: prefixes")
    for i in range(0, len(data), step):
        path.write_bytes(data[:i] + bytes([data[i] ^ (1 << i % 8)]) + data[i + 1 :])
        flips.attempt(read, path, f"byte {i}")
        path.write_bytes(data[:i])
        cuts.attempt(read, path, f"{i} bytes")
    yield from (flips, cuts)


def sealed(tree: bytes) -> bytes:
    """A file of ours, with its checksum, whose tree are these opcodes of pickle."""
    content = HEADER + tree + b"u."
    body = b"\x80\x04\x95" + struct.pack("<Q", len(content)) + content
    return body + hashlib.sha256(body).digest()


def long_integer(value: int) -> bytes:
    """The opcode of an integer."""
    raw = value.to_bytes((value.bit_length() + 8) // 8, "little")
    return b"\x8a" + bytes([len(raw)]) + raw


def forged(tree: dict[str, Any]) -> dict[str, bytes]:
    """Files that were made to cost, by what they hold. `tree` is a sound policy."""
    prime = 2**61 - 1  # Python's hash of an integer is its remainder by this
    array = b"}\x8c\x09__array__](\x8c\x04int8]("
    raw = {
        "integer keys of one hash": b"}(" + b"".join(long_integer(k * prime) + b"N" for k in range(1, 40_000)) + b"u",
        "a shape of long integers": array + long_integer(2**2000 - 1) * 2_000 + b"eC\x00es",
        "a shape of 64 integers": array + long_integer(2**62) * 64 + b"eC\x00es",
        "ten million lists": b"]" * 10_000_000,
        "a million empty dicts": b"](" + b"}" * 1_000_000 + b"e",
        "os.system": b"cos\nsystem\n\x8c\x0atouch OWNED\x85R",
    }
    network = {
        "a million layers": {"encoder": "gru", "encoder_depth": 10**6},
        "64 layers of attention": {"encoder": "attention", "encoder_depth": 64},
        "a hundred thousand hidden layers": {"hidden": [1] * 100_000},
        "a hidden layer of 2^40": {"hidden": [2**40]},
        "a window of 2^62": {"encoder": "tcn", "encoder_depth": 1, "window": 2**62},
        "features of 2^62": {"features": 2**62},
    }
    changed = {name: tree | {"network": tree["network"] | change} for name, change in network.items()}
    changed["a shape of 100,000 sides"] = tree | {"actions": tree["actions"] | {"shape": [2**62] * 100_000}}
    changed["250 members"] = {"agent": "Ensemble", "version": 3, "members": [tree] * 250, "about": {}}
    return {name: sealed(opcodes) for name, opcodes in raw.items()} | {
        name: files.encoded("policy", content) for name, content in changed.items()
    }


def backtest(path: Path) -> None:
    """`jaxtrader backtest`, whose refusal becomes a FileError."""
    error = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(error):
        if jaxtrader(["backtest", str(path)]):
            raise files.FileError(f"{path.name}: {error.getvalue().strip()}")


def main() -> None:
    """Print the table. The exit code is 1 where a file was not refused by name."""
    given = parsed(arguments(__doc__, "a few bytes only: shows that the script runs"))
    tallies: list[Tally] = []
    with tempfile.TemporaryDirectory() as parent, contextlib.chdir(parent):
        folder = Path(parent)
        tiny_trainer(f"{parent}/run", 3).train()
        readers: dict[str, Read] = {"policy.pkl": jt.load_policy, "checkpoint.pkl": read_checkpoint}
        for name, read in readers.items():
            tallies += regions(folder / "run" / name, read, 500 if given.quick else 1)
            print(*tallies[-2].row(), *tallies[-1].row(), flush=True)
        tree = files.load(folder / "run" / "policy.pkl", "policy")
        for what, data in forged(tree).items():
            tallies.append(Tally(what))
            (folder / "forged.pkl").write_bytes(data)
            tallies[-1].attempt(jt.load_policy, folder / "forged.pkl", what)
        os.mkfifo(folder / "pipe")
        tallies.append(Tally("a pipe as the policy"))
        tallies[-1].attempt(jt.load_policy, folder / "pipe", "pipe")
        command = {"data": str(folder / "pipe"), "cuts": ["2020-05-01", "2020-06-01"]}
        files.save(folder / "piped.pkl", "policy", tree | {"about": tree["about"] | {"command": command}})
        tallies.append(Tally("a pipe as its data"))
        tallies[-1].attempt(backtest, folder / "piped.pkl", "pipe")
        owned = (folder / "OWNED").exists()
    others = [text for tally in tallies for text in tally.others]
    facts = {
        "work": "a policy file and a checkpoint of a tiny PPO, and files with a valid checksum",
        "not refused by name": others or "none",
        "code was run": owned,
    }
    report("damage", COLUMNS, [tally.row() for tally in tallies], facts, given.quick)
    if others or owned:
        sys.exit(1)


if __name__ == "__main__":
    main()
