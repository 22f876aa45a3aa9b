"""What a compiled program launches, read from its text.

On an accelerator each of these instructions is a kernel or a copy that is launched by itself. A loop's body counts as
often as the loop runs.
"""

from __future__ import annotations

import re
from collections import Counter

# They only name memory or numbers.
NO_WORK = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id"}
KINDS = {"fusion": "fusions", "copy": "copies", "dot": "products", "custom-call": "custom calls"}

_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{\s*$")
_INSTRUCTION = re.compile(r"= .*? ([a-z][\w\-]*)\(")
_TRIPS = re.compile(r'known_trip_count"?[^0-9}]*"?(\d+)')
# Products that a library or a generator of kernels makes: of a CPU by the name, of a GPU by the target.
_PRODUCT = re.compile(r"^\s*(?:ROOT )?%?ynn_fusion|__onednn\$matmul|__cublas|__triton_gemm")
_CALLED = re.compile(r"(?:to_apply|body|calls|branch_computations|true_computation|false_computation)=\{?%?([\w.\-]+)")


class Program:
    """The computations of an optimised HLO module.

    Args:
        text: `compiled.as_text()`.
    """

    def __init__(self, text: str) -> None:
        self.bodies: dict[str, list[str]] = {}
        self.entry, current = "", ""
        for line in text.splitlines():
            head = _HEAD.match(line)
            if head:
                current = head[2]
                self.bodies[current] = []
                self.entry = current if head[1] else self.entry
            elif current and line.startswith(" "):
                self.bodies[current].append(line)

    def launches(self, name: str | None = None) -> Counter[str]:
        """Count what a computation launches, by kind. The default is the whole program."""
        found: Counter[str] = Counter()
        for line in self.bodies[name or self.entry]:
            instruction = _INSTRUCTION.search(line)
            kind = instruction[1] if instruction else "parameter"
            called = _CALLED.search(line)
            if kind in NO_WORK:
                continue
            if kind == "while" and called:
                trips = self._trips(line)
                found.update({each: trips * count for each, count in self.launches(called[1]).items()})
            elif kind in ("call", "conditional") and called:
                found.update(self.launches(called[1]))
            elif _PRODUCT.search(line):
                found["products"] += 1
            else:
                found[KINDS.get(kind, "others")] += 1
        return found

    def loop(self, trips: int) -> Counter[str]:
        """Count what one pass launches of the largest loop that runs so many times."""
        bodies = [
            self.launches(_CALLED.search(line)[1])  # pyrefly: ignore
            for lines in self.bodies.values()
            for line in lines
            if " while(" in line and self._trips(line) == trips
        ]
        if not bodies:
            raise ValueError(f"no loop of the program runs {trips} times")
        return max(bodies, key=Counter.total)

    def _trips(self, line: str) -> int:
        known = _TRIPS.search(line)
        return int(known[1]) if known else 1
