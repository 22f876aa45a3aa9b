"""The compilation cache: a second process loads what the first one compiled, and every way to turn it off."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxtrader import compilation

PROGRAM = """
import jax, jax.numpy as jnp
jax.block_until_ready(jnp.ones(3) + 1)  # JAX has looked for its cache by now, and found none
from jaxtrader.compilation import keep_programs
print(keep_programs())
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
loaded = []
jax.monitoring.register_event_listener(lambda name, **_: loaded.append(name))
print(float(jax.jit(lambda x: (x @ x.T).sum())(jnp.arange(6.0).reshape(2, 3))))
print(sum(name == "/jax/compilation_cache/cache_hits" for name in loaded))
"""


def run(**variables: str) -> list[str]:
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"} | variables
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_a_second_process_loads_what_the_first_compiled(tmp_path: Path) -> None:
    folder, total, hits = run(JAXTRADER_CACHE=str(tmp_path))
    assert Path(folder).parent == tmp_path
    assert hits == "0"
    kept = {path.name for path in Path(folder).iterdir()}
    assert any("lambda" in name for name in kept)
    again, total_too, hits = run(JAXTRADER_CACHE=str(tmp_path))
    assert (again, total_too) == (folder, total) == (folder, "83.0")
    assert int(hits) >= 1


def test_it_can_be_turned_off_and_leaves_jaxs_own_setting_alone(tmp_path: Path) -> None:
    assert run(JAXTRADER_CACHE="off")[::2] == ["None", "0"]
    own = str(tmp_path / "own")
    assert run(JAXTRADER_CACHE=str(tmp_path), JAX_COMPILATION_CACHE_DIR=own)[0] == own
    file = tmp_path / "file"
    file.write_text("")
    assert run(JAXTRADER_CACHE=str(file))[0] == "None", "no folder can be made there, and nothing fails"


def test_the_tests_do_not_use_it() -> None:
    assert os.environ[compilation.VARIABLE] == "off"
    assert compilation.keep_programs() is None


@pytest.mark.parametrize(
    ("system", "variables", "expected"),
    [
        ("linux", {"XDG_CACHE_HOME": "/somewhere"}, "/somewhere"),
        ("linux", {}, "/home/me/.cache"),
        ("darwin", {}, "/home/me/Library/Caches"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local"),
    ],
)
def test_the_folder_is_the_systems(monkeypatch, system: str, variables: dict[str, str], expected: str) -> None:
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(Path, "home", lambda: Path("/home/me"))
    assert compilation._caches() == Path(expected)


def test_the_oldest_programs_go_first(tmp_path: Path, monkeypatch) -> None:
    for age, name in enumerate(("new", "middle", "old")):
        path = tmp_path / name
        path.write_bytes(b"x" * 10)
        os.utime(path, (1000 - age, 1000 - age))
    monkeypatch.setattr(compilation, "MAX_BYTES", 15)
    compilation._prune(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
