"""The compilation cache: a second process loads what the first compiled, and how the cache is limited or turned off."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from jaxtrader import compilation

PROGRAM = """
import jax, jax.numpy as jnp
jax.block_until_ready(jnp.ones(3) + 1)  # JAX has looked for its cache by now, and found none
from jaxtrader import compilation
compilation.MAX_BYTES = {limit}
print(compilation.enable_cache())
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
events = []
jax.monitoring.register_event_listener(lambda name, **_: events.append(name))
print(float(jax.jit(lambda x: (x @ x.T).sum())(jnp.arange(6.0).reshape(2, 3))))
print(sum(name == "/jax/compilation_cache/cache_hits" for name in events))
"""


def run(limit: int = compilation.MAX_BYTES, **variables: str) -> list[str]:
    """The cache's folder, a computed number, and how many programs were loaded, in a process of its own."""
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"} | variables
    command = [sys.executable, "-W", "error", "-c", PROGRAM.format(limit=limit)]  # JAX warns where storing fails
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split()


def programs(folder: str) -> set[str]:
    return {path.name for path in Path(folder).glob("*-cache")}


@pytest.mark.slow
def test_a_second_process_loads_what_the_first_compiled(tmp_path: Path) -> None:
    folder, total, hits = run(JAXTRADER_CACHE=str(tmp_path))
    assert Path(folder).parent == tmp_path
    assert hits == "0"
    assert any("lambda" in name for name in programs(folder))
    again, total_too, hits = run(JAXTRADER_CACHE=str(tmp_path))
    assert (again, total_too) == (folder, total) == (folder, "83.0")
    assert int(hits) >= 1


@pytest.mark.slow
def test_programs_that_a_killed_process_left_or_that_cannot_be_read_are_deleted(tmp_path: Path) -> None:
    folder, *_ = run(JAXTRADER_CACHE=str(tmp_path))
    left = Path(folder) / "killed-cache"
    left.write_bytes(b"half")
    stored = programs(folder) - {left.name}
    one = next(path for path in Path(folder).glob("*lambda*-cache"))
    whole = one.read_bytes()
    one.write_bytes(whole[: len(whole) // 2])  # its time stamp is there
    run(JAXTRADER_CACHE=str(tmp_path))  # JAX would store nothing more here, and warn
    assert programs(folder) == stored
    assert one.stat().st_size > len(whole) // 2, "it was compiled and stored once more"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_in_the_folder_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe-cache"
    os.mkfifo(pipe)
    (tmp_path / "pipe-atime").write_bytes(b"12345678")
    compilation._delete_unreadable(tmp_path)
    assert pipe.exists()


def test_a_user_without_a_home_has_no_cache_and_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> str:
        raise RuntimeError("could not determine the home directory")

    monkeypatch.delenv(compilation.VARIABLE)
    monkeypatch.setattr(compilation.platformdirs, "user_cache_dir", fail)
    monkeypatch.setattr(compilation, "jax", SimpleNamespace(config=SimpleNamespace()))
    assert compilation.enable_cache() is None


@pytest.mark.slow
def test_the_oldest_programs_go_where_the_limit_is_reached(tmp_path: Path) -> None:
    folder, *_ = run(JAXTRADER_CACHE=str(tmp_path))
    sizes = {path: path.stat().st_size for path in Path(folder).glob("*-cache")}
    old = Path(folder) / "old-cache"
    old.write_bytes(b"x" * 1000)
    old.with_name("old-atime").write_bytes((1).to_bytes(8, "little"))
    new = next(path for path in sizes if "lambda" in path.name)
    new.unlink()
    run(limit=sum(sizes.values()) + 500, JAXTRADER_CACHE=str(tmp_path))
    assert programs(folder) == {path.name for path in sizes}, "the new program took the place of the old one"


@pytest.mark.parametrize("own", [True, False])
def test_it_leaves_jaxs_own_setting_alone_and_a_folder_that_cannot_be_made(
    own: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = SimpleNamespace(jax_compilation_cache_dir=str(tmp_path / "own") if own else None)  # it cannot be updated
    monkeypatch.setattr(compilation, "jax", SimpleNamespace(config=config))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(compilation.VARIABLE, str(tmp_path / ("new" if own else "file")))
    assert compilation.enable_cache() == (tmp_path / "own" if own else None)
    assert not (tmp_path / "new").exists()


def test_the_tests_do_not_use_it() -> None:
    assert os.environ[compilation.VARIABLE] == "off"
    assert compilation.enable_cache() is None


def test_the_default_folder_is_the_systems(tmp_path: Path) -> None:
    folder, *_ = run(JAXTRADER_CACHE="", XDG_CACHE_HOME=str(tmp_path))
    assert Path(folder).parent == tmp_path / "jaxtrader"


@pytest.mark.usefixtures("optimized")
def test_options_for_a_cpu_are_given_to_a_cpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """And to none while JAX is asked for the least optimisation. The first call decides for none of the later ones."""
    given = []
    options = {"xla_backend_optimization_level": 1, "xla_of_another_version": True}
    known = [compilation._is_known(*option) for option in options.items()]
    assert known == [True, False]
    monkeypatch.setattr("jax.jit", lambda function, **settings: given.append(settings) or function)
    double = compilation.Jitted(lambda x: 2 * x, options, donate_argnums=0)
    assert not given, "a module that is imported asks for no device"
    for device, least in (("gpu", False), ("cpu", True), ("cpu", False), ("cpu", False), ("gpu", False)):
        monkeypatch.setattr("jax.default_backend", lambda device=device: device)
        jax.config.update("jax_disable_most_optimizations", least)
        assert double(3) == 6
    chosen = {"compiler_options": {"xla_backend_optimization_level": 1}, "donate_argnums": 0}
    assert given == [{"donate_argnums": 0}, chosen]
