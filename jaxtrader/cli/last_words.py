"""The last words of a process that JAX ends: one sentence instead of a stack of addresses.

Where a process is lost, JAX's C++ code prints several lines and aborts the others, in which no Python runs any more. So
what C++ prints goes through this script, a process of its own that imports nothing of the package:

    python last_words.py NOT_JOINED LOST < PIPE

It copies its input to standard error. The text with which JAX ends a process becomes the sentence NOT_JOINED where the
processes had not come together yet, else LOST. A line that begins with the character 0 replaces LOST by what follows,
and says that all before is explained.
The character 1 alone prints LOST now. It is printed once. Where it is empty, JAX's text is dropped.
"""

from __future__ import annotations

import os
import re
import select
import sys

FATAL = b"Terminating process because the JAX distributed service detected fatal errors"
JOINING = b"RegisterTask"
ABOUT = (b"coordination_service", b"coordination service", b"add_port.cc")  # in lines of the log that come just before
# Each device says that it is connected, piece by piece, so that the pieces of several are mixed.
NOISE = re.compile(
    rb"(\[Gloo\] Rank |\d+| is connected to | peer ranks\. |Expected number of connected peer ranks is : )*"
)
HOLD_SECONDS = 30.0  # how long the lines before wait for the end


def main() -> None:
    """Copy until the process is gone."""
    not_joined, lost = (word.encode() for word in sys.argv[1:])
    waiting = unfinished = b""
    while True:
        if waiting and not select.select([0], [], [], HOLD_SECONDS)[0]:
            os.write(2, waiting)
            waiting = b""
        data = os.read(0, 2**16)
        if not data:
            os.write(2, waiting + unfinished)
            return
        lines = (unfinished + data).split(b"\n")
        unfinished = lines.pop()
        for i, line in enumerate(lines):
            if line.startswith(b"\0"):
                lost, waiting = line[1:], b""
            elif line == b"\1":
                say(lost)
                lost = waiting = b""
            elif FATAL in line:
                text = b"\n".join(lines[i:]) + unfinished
                while more := os.read(0, 2**16):
                    text += more
                say(not_joined if JOINING in text else lost)
                return
            elif waiting or any(word in line for word in ABOUT):
                waiting += line + b"\n"
            elif not NOISE.fullmatch(line):
                os.write(2, line + b"\n")


def say(sentence: bytes) -> None:
    """Print a sentence, where it is one."""
    if sentence:
        os.write(2, b"jaxtrader: error: " + sentence + b"\n")


if __name__ == "__main__":
    main()
