"""The persistent compilation cache: a second run of the same shapes loads its programs instead of compiling them.

The Trainer and the command line turn it on. `JAXTRADER_CACHE` names the folder, or is "off". JAX's own setting
(`JAX_COMPILATION_CACHE_DIR`) wins. JAX itself tells programs apart, stores them and deletes the oldest.
"""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path

import jax
import platformdirs
from jax.experimental.compilation_cache import compilation_cache

VARIABLE = "JAXTRADER_CACHE"
MAX_BYTES = 2**30


def enable_cache() -> Path | None:
    """Turn the cache on for this process and return its folder.

    Each kind of processor and number of cores has its own folder, since several machines may share a home folder.
    JAX stores programs that take a second or more to compile. Beyond `MAX_BYTES` it deletes the least recently used.

    Returns:
        The folder. None where the cache is off or its folder cannot be written.
    """
    if os.environ.get(VARIABLE, "").lower() in ("off", "0", "no", "false"):
        return None
    if (own := getattr(jax.config, "jax_compilation_cache_dir", None)) is not None:
        return Path(own)
    parent = os.environ.get(VARIABLE) or platformdirs.user_cache_dir("jaxtrader", appauthor=False)
    folder = Path(parent) / f"programs-{_machine_id()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _delete_unfinished(folder)
    except OSError:
        return None
    if not os.access(folder, os.W_OK):
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if getattr(jax.config, "jax_compilation_cache_max_size", None) == -1:  # JAX's default: no limit
        jax.config.update("jax_compilation_cache_max_size", MAX_BYTES)
    compilation_cache.reset_cache()  # JAX reads these settings once, at the first compilation, which may be over
    return folder


def _machine_id() -> str:
    """A hash of the processor's model and features and of the number of cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    machine = f"{platform.machine()} {platform.processor()} {cores}"
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text(errors="replace").splitlines()
        machine += "".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
    return hashlib.sha256(machine.encode()).hexdigest()[:12]


def _delete_unfinished(folder: Path) -> None:
    """Delete programs without a time stamp, which a killed process leaves behind.

    JAX writes the stamp after the program. It stores nothing more in a folder where a stamp is missing.
    """
    for program in folder.glob("*-cache"):
        if not program.with_name(program.name.removesuffix("-cache") + "-atime").exists():
            program.unlink(missing_ok=True)
