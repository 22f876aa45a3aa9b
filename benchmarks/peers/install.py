"""Virtual environments of the peers: made once by whoever asks, from the package index, versions pinned."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HOME = Path(__file__).parent.parent / "results" / "peers"
PACKAGES = {"sb3": ("torch==2.13.0", "stable-baselines3==2.9.2", "gymnasium==1.4.0", "numpy==2.4.6")}


def python_of(peer: str) -> str:
    """The interpreter of a peer's environment, which is made where it is not there yet (some minutes, some GB).

    Raises SystemExit, with what pip said, where a package cannot be installed.
    """
    folder = HOME / peer
    python, complete = folder / "bin" / "python", folder / "complete"
    if complete.exists() and complete.read_text() == repr(PACKAGES[peer]):
        return str(python)
    print(f"installing {', '.join(PACKAGES[peer])} into {folder}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
    # torch by itself first: beside others, pip may take another build of it.
    for package in PACKAGES[peer]:
        done = subprocess.run([python, "-m", "pip", "install", "-q", package], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{package} could not be installed for {peer}: {done.stderr.strip()[-500:]}")
    complete.write_text(repr(PACKAGES[peer]))
    return str(python)
