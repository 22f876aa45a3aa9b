"""The persistent compilation cache: a second run of the same shapes loads its programs instead of compiling them.

The Trainer and the command line turn it on. `JAXTRADER_CACHE` names the folder, or is "off". JAX's own setting
(`JAX_COMPILATION_CACHE_DIR`) wins. JAX itself tells programs apart, stores them and deletes the oldest.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock
import jax
import platformdirs
from jax.experimental.compilation_cache import compilation_cache

VARIABLE = "JAXTRADER_CACHE"
# Options of XLA for a CPU. LLVM's first level makes a training chunk that is as fast as one of the third.
LEVEL_1: dict[str, Any] = {"xla_backend_optimization_level": 1}
# XLA's earlier emitters compile a kernel in half of the time. A loop over one account's bars runs as fast with them,
# and a training chunk is a third slower.
SHORT_TO_COMPILE: dict[str, Any] = {"xla_backend_optimization_level": 1, "xla_cpu_use_fusion_emitters": False}
# For what runs once on little.
RUNS_ONCE: dict[str, Any] = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
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
    if (chosen := getattr(jax.config, "jax_compilation_cache_dir", None)) is not None:
        return Path(chosen)
    try:
        parent = os.environ.get(VARIABLE) or platformdirs.user_cache_dir("jaxtrader", appauthor=False)
    except RuntimeError:  # no HOME, and a user whom the system does not know, as in some containers
        return None
    folder = Path(parent) / f"programs-{_machine_id()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _delete_unreadable(folder)
    except OSError:
        return None
    if not os.access(folder, os.W_OK):
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if getattr(jax.config, "jax_compilation_cache_max_size", None) == -1:  # JAX's default: no limit
        jax.config.update("jax_compilation_cache_max_size", MAX_BYTES)
    compilation_cache.reset_cache()  # JAX reads these settings once, at the first compilation, which may be over
    return folder


class Jitted:
    """`jax.jit` of a function, with options of XLA's compiler where the default device is a CPU.

    JAX has to be asked for the device, and must not be asked when a module is imported. So the function is jitted when
    it is used. Attributes, such as `lower`, are those of `jax.jit`'s result.

    Args:
        function: to jit.
        cpu_options: XLA's options on a CPU. Those that this version of XLA does not know are left out. None is given
            where `jax_disable_most_optimizations` is set, as JAX has options of its own for that.
        settings: further arguments of `jax.jit`.
    """

    def __init__(self, function: Callable[..., Any], cpu_options: dict[str, Any], **settings: Any) -> None:
        self._function, self._cpu_options, self._settings = function, cpu_options, settings
        functools.update_wrapper(self, function)

    @property
    def _jitted(self) -> Any:
        has_options = jax.default_backend() == "cpu" and not jax.config.read("jax_disable_most_optimizations")
        return self._with_options if has_options else self._plain

    @functools.cached_property
    def _with_options(self) -> Any:
        options = {name: x for name, x in self._cpu_options.items() if _is_known(name, x)}
        return jax.jit(self._function, compiler_options=options, **self._settings)

    @functools.cached_property
    def _plain(self) -> Any:
        return jax.jit(self._function, **self._settings)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Call the function's program. Inside another program, which has its own options, it is a part of that one."""
        if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves((arguments, named))):
            return self._function(*arguments, **named)
        return self._jitted(*arguments, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._jitted, name)


@functools.cache
def _is_known(name: str, value: Any) -> bool:
    """Whether XLA has this option of its compiler."""
    try:
        jax.jit(lambda: 0).lower().compile(compiler_options={name: value})
    except jax.errors.JaxRuntimeError:
        return False
    return True


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _machine_id() -> str:
    """A hash of the processor's model and features and of the number of cores."""
    machine = f"{platform.machine()} {platform.processor()} {cores()}"
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text(errors="replace").splitlines()
        machine += "".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
    return hashlib.sha256(machine.encode()).hexdigest()[:12]


def _delete_unreadable(folder: Path) -> None:
    """Delete programs that a killed process has left unfinished, and others that cannot be read.

    JAX itself stores nothing in the place of such a program, and compiles it at every start. It writes a time stamp
    after each program, and stores nothing more in a folder where a stamp is missing. Only what was stored since the
    last call is read.
    """
    lock = filelock.FileLock(folder / ".lockfile")  # JAX's own, which it holds while it writes
    with contextlib.suppress(filelock.Timeout), lock.acquire(timeout=0):
        mark = folder / ".checked"
        checked = mark.stat().st_mtime_ns if mark.exists() else 0
        mark.touch()
        for program in folder.glob("*-cache"):
            stamp = program.with_name(program.name.removesuffix("-cache") + "-atime")
            is_new = program.stat().st_mtime_ns >= checked
            if not stamp.is_file() or (is_new and not _is_readable(program)):
                program.unlink(missing_ok=True)
                stamp.unlink(missing_ok=True)


def _is_readable(program: Path) -> bool:
    """Whether a program is whole. What is no regular file is not read, since a pipe has no end, and is left alone."""
    if not program.is_file():
        return True
    try:
        from jax._src.compilation_cache import decompress_executable
    except ImportError:  # another JAX may have no such function
        return True
    try:
        decompress_executable(program.read_bytes())
    except Exception:  # each compression has errors of its own
        return False
    return True
