"""The persistent compilation cache: a second run of the same shapes loads its programs instead of compiling them.

On by default for the Trainer and the command line. JAXTRADER_CACHE names the folder, or is "off"; where JAX's own cache
is set (JAX_COMPILATION_CACHE_DIR), nothing is done. Programs are told apart by everything that goes into them, the
versions included, and here by the processor and the number of cores too: a home folder may be shared by machines.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache

VARIABLE = "JAXTRADER_CACHE"
MAX_BYTES = 2**30  # programs that were not used for longest are deleted beyond this


def keep_programs() -> Path | None:
    """Turn the cache on for this process; its folder, or None where it is off or cannot be written.

    Compilations of a second and more are kept.
    """
    if os.environ.get(VARIABLE, "").lower() in ("off", "0", "no", "false"):
        return None
    own = getattr(jax.config, "jax_compilation_cache_dir", None)
    if own is not None:
        return Path(own)
    folder = Path(os.environ.get(VARIABLE) or _caches() / "jaxtrader") / f"xla-{_machine()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _prune(folder)
    except OSError:
        return None
    if not os.access(folder, os.W_OK):
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    compilation_cache.reset_cache()  # JAX looks once, at the first compilation, and it may have been
    return folder


def _caches() -> Path:
    """Where this system keeps what may be deleted."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _machine() -> str:
    """A name for the processor's kind, with what it can do, and the number of cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    about = f"{platform.machine()} {platform.processor()} {cores}"
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text(errors="replace").splitlines()
        about += "".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
    return hashlib.sha256(about.encode()).hexdigest()[:12]


def _prune(folder: Path) -> None:
    """Delete the files that were not used for longest until the rest fits MAX_BYTES."""
    files = [(path.stat(), path) for path in folder.iterdir() if path.is_file()]
    total = sum(about.st_size for about, _ in files)
    for about, path in sorted(files, key=lambda file: max(file[0].st_atime, file[0].st_mtime)):
        if total <= MAX_BYTES:
            return
        path.unlink(missing_ok=True)
        total -= about.st_size
