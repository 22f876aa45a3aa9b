"""Virtual environments of the peers: made once by whoever asks, from the package index, versions pinned."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

# Some GB: BENCHMARK_PEERS names a folder that several checkouts share.
HOME = Path(os.environ.get("BENCHMARK_PEERS") or Path(__file__).parent.parent / "results" / "peers")
# What decides about their speed is pinned too, not only they themselves.
_TABLES = ("numpy==2.4.6", "pandas==3.1.1")
_TORCH, _JAX = ("torch==2.13.0",), ("jax==0.10.2", "jaxlib==0.10.2", "flax==0.12.8", "optax==0.2.8")
# What our own modules import, where they build a peer's market.
_OURS = ("filelock==4.3.1", "platformdirs==4.14.9")
_SB3 = (*_TORCH, *_TABLES, "stable-baselines3==2.9.2", "gymnasium==1.4.0")
PACKAGES = {
    "sb3": _SB3,
    "gym": (*_SB3, "gym-trading-env==0.3.5", "gym-anytrading==2.0.0"),
    "sbx": (*_SB3, *_JAX, "tfp-nightly==0.26.0.dev20261027", "sbx-rl==0.28.0", "gym-trading-env==0.3.5"),
    "torchtrade": (*_TORCH, *_TABLES, "tensordict==0.13.0", "torchrl==0.13.3", "torchtrade==0.1.0"),
    "rejax": (*_JAX, *_TABLES, *_OURS, "gymnax==0.0.9", "rejax==0.1.3", "jaxtyping==0.3.11"),
    "gymtrading": (*_TABLES, "gym-trading-env==0.3.5", "gymnasium==1.4.0"),
    "finrl": (*_SB3, "matplotlib==3.11.2"),
    "backtests": (*_TABLES, "numba==0.68.1", "vectorbt==1.2.0", "backtesting==0.6.6"),
}
# Installed without what it depends on: FinRL's own list has brokers and downloaders, and one file of it is enough.
ALONE = {"finrl": ("FinRL==0.3.7",)}


def add_options(parser: argparse.ArgumentParser, *peers: str) -> None:
    """`--peers` and `--peer-python` of a benchmark that runs beside these."""
    parser.add_argument("--peers", default=",".join(peers), help="which to run beside, with commas; '' for none")
    parser.add_argument(
        "--peer-python",
        action="append",
        default=[],
        metavar="PEER=PYTHON",
        help=f"an interpreter that has a peer ({', '.join(peers)}); without it one is installed",
    )


def interpreters(given: argparse.Namespace) -> dict[str, str]:
    """The interpreter of each peer that the options of `add_options` ask for. Raises SystemExit at an unknown one."""
    known = dict(option.split("=", 1) for option in given.peer_python)
    asked = [peer for peer in given.peers.split(",") if peer]
    if unknown := {*asked, *known} - set(PACKAGES):
        raise SystemExit(f"{', '.join(sorted(unknown))}: not one of the peers {', '.join(PACKAGES)}")
    return {peer: known.get(peer) or python_of(peer) for peer in asked}


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
    # torch by itself first: beside others, pip may take another build of it. Then all at once, so that every pin holds.
    stages = [((), PACKAGES[peer][:1]), ((), PACKAGES[peer])]
    stages += [(("--no-deps",), ALONE[peer])] if peer in ALONE else []
    for flags, packages in stages:
        words = [python, "-m", "pip", "install", "-q", *flags, *packages]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{', '.join(packages)}: not installed for {peer}: {done.stderr.strip()[-500:]}")
    complete.write_text(repr(PACKAGES[peer]))
    return str(python)


def main() -> None:
    """Install some peers, by default all, and print their interpreters."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("peers", nargs="*", metavar="PEER", help=f"of {', '.join(PACKAGES)}; default all")
    given = parser.parse_args().peers
    if unknown := set(given) - set(PACKAGES):
        parser.error(f"{', '.join(sorted(unknown))}: not one of the peers {', '.join(PACKAGES)}")
    for peer in given or PACKAGES:
        print(f"--peer-python {peer}={python_of(peer)}", flush=True)


if __name__ == "__main__":
    main()
