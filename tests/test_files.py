"""files.py: what goes in comes out, damage is found, and a forged file gets nothing done."""

import hashlib
import os
import pickle
import re
import struct
import subprocess
import sys
import textwrap
import time
import tracemalloc
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jaxtrader import files
from jaxtrader.files import FileError, load, save, write_text

DTYPES = [np.dtype(name) for name in ("bool", "int8", "int64", "uint32", "float16", "float32", "float64", "complex64")]
DTYPES.append(np.dtype(ml_dtypes.bfloat16))
TAGS = ("__array__", "__key__", "__tuple__")


@st.composite
def arrays(draw):
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    size = int(np.prod(shape))
    raw = draw(st.binary(min_size=size * dtype.itemsize, max_size=size * dtype.itemsize))
    if dtype == np.bool_:
        raw = bytes(byte % 2 for byte in raw)
    return np.frombuffer(raw, dtype).reshape(shape)  # any bits at all, so NaN payloads and -0.0 too


leaves = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text() | arrays()
keys = st.text().filter(lambda key: key not in TAGS)
trees = st.recursive(
    leaves,
    lambda child: st.lists(child, max_size=4) | st.lists(child, max_size=4).map(tuple) | st.dictionaries(keys, child),
    max_leaves=12,
)


def assert_same(a, b):
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    elif isinstance(a, np.ndarray):
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    elif isinstance(a, float):
        assert struct.pack("<d", a) == struct.pack("<d", b)
    else:
        assert a == b


def forge(path, body: bytes):
    """Write any bytes with a sum that is valid, as an attacker would."""
    path.write_bytes(body + hashlib.sha256(body).digest())
    return path


HEADER = b"}(\x8c\x06format\x8c\x09jaxtrader\x8c\x07versionK\x01\x8c\x04kind\x8c\x01k\x8c\x04tree"


def forge_tree(path, tree_opcodes: bytes, end: bytes = b"u."):
    """A file of ours in all but the opcodes of its tree."""
    content = HEADER + tree_opcodes + end
    return forge(path, b"\x80\x04\x95" + struct.pack("<Q", len(content)) + content)


def load_error(path, kind="k") -> str:
    with pytest.raises(FileError) as caught:
        load(path, kind)
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text
    assert len(text) < 400 + len(str(path))
    return text


def run_python(code: str, *arguments) -> int:
    """The exit status of a process of its own, which sees the package that these tests see."""
    environment = os.environ | {"PYTHONPATH": str(Path(files.__file__).parents[1])}
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, env=environment, check=False).returncode


class TestRoundTrip:
    @given(trees)
    @settings(max_examples=150, deadline=None)
    def test_any_tree(self, tmp_path_factory, tree):
        path = tmp_path_factory.getbasetemp() / "tree"
        save(path, "k", tree)
        assert_same(load(path, "k"), tree)

    def test_jax_arrays_come_back_as_writable_numpy(self, tmp_path):
        values = {"w": jnp.arange(6, dtype=jnp.bfloat16).reshape(2, 3), "n": jnp.int32(7)}
        save(tmp_path / "f", "k", values)
        back = load(tmp_path / "f", "k")
        assert type(back["w"]) is np.ndarray
        assert back["w"].dtype == ml_dtypes.bfloat16
        assert back["w"].tolist() == [[0, 1, 2], [3, 4, 5]]
        assert (back["n"].shape, back["n"].dtype, int(back["n"])) == ((), np.int32, 7)
        back["w"][0, 0] = 9
        assert float(back["w"][0, 0]) == 9

    def test_strided_big_endian_and_scalars(self, tmp_path):
        values = [np.arange(12.0).reshape(3, 4).T[::2], np.arange(3, dtype=">i4"), np.float32(0.5), np.bool_(True)]
        save(tmp_path / "f", "k", values)
        back = load(tmp_path / "f", "k")
        for value, loaded in zip(values, back, strict=True):
            np.testing.assert_array_equal(loaded, value, strict=loaded.dtype == value.dtype)
        assert back[1].dtype == np.dtype("int32")

    @pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
    def test_typed_keys_stay_typed(self, tmp_path, impl):
        keys = jax.random.split(jax.random.key(5, impl=impl), (2, 3))
        save(tmp_path / "f", "k", {"keys": keys})
        back = load(tmp_path / "f", "k")["keys"]
        assert back.dtype == keys.dtype
        assert back.shape == (2, 3)
        np.testing.assert_array_equal(jax.random.normal(back[1, 2], (3,)), jax.random.normal(keys[1, 2], (3,)))

    def test_more_than_one_pickle_frame_and_batch(self, tmp_path):
        tree = {"big": np.arange(200_000), "many": {str(i): i for i in range(2500)}, "text": "é" * 100_000}
        save(tmp_path / "f", "k", tree)
        assert_same(load(tmp_path / "f", "k"), tree)

    def test_same_tree_same_bytes(self, tmp_path):
        shared = [1.0, "s"]
        save(tmp_path / "a", "k", {"x": shared, "y": shared, "z": np.ones(3)})
        save(tmp_path / "b", "k", {"x": [1.0, "s"], "y": [1.0, "s"], "z": np.ones(3)})
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()

    def test_plain_pickle_reads_it(self, tmp_path):
        save(tmp_path / "f", "policy", {"a": np.array([[1, 2]], np.int16), "t": (1, "x")})
        with open(tmp_path / "f", "rb") as file:
            document = pickle.load(file)
        tree = {"a": {"__array__": ["int16", [1, 2], b"\x01\x00\x02\x00"]}, "t": {"__tuple__": [1, "x"]}}
        assert document == {"format": "jaxtrader", "version": 1, "kind": "policy", "tree": tree}

    def test_needs_no_jax(self, tmp_path):
        code = """
            import sys, numpy as np
            from jaxtrader import files
            files.save(sys.argv[1], "k", {"a": np.ones(2)})
            assert files.load(sys.argv[1], "k")["a"].tolist() == [1, 1]
            assert "jax" not in sys.modules
        """
        assert run_python(code, tmp_path / "f") == 0


class TestRefusedTrees:
    @pytest.mark.parametrize(
        ("tree", "says"),
        [
            ({"a": {"b": {1, 2}}}, r"tree\['a'\]\['b'\] is a set"),
            ({1: 2}, "the key 1 of type int"),
            ({"__array__": 1}, "'__array__', which the file format uses"),
            ([b"raw"], r"tree\[0\] is a bytes"),
            ([np.array([object()])], r"tree\[0\] is an array of object"),
            (np.array(["x"]), "an array of str"),
            (np.datetime64("2020-01-01"), "an array of datetime64"),
            (2**63, "an integer beyond 8 bytes"),
            (lambda: 0, "is a function"),
        ],
    )
    def test_names_the_place(self, tmp_path, tree, says):
        with pytest.raises(FileError, match=says):
            save(tmp_path / "f", "k", tree)
        assert list(tmp_path.iterdir()) == []

    def test_more_parts_than_can_be_read(self, tmp_path):
        with pytest.raises(FileError, match=r"more than 250,000 parts, which is not read; save fewer, larger arrays"):
            save(tmp_path / "f", "k", [[]] * files.MAX_OPCODES)
        assert list(tmp_path.iterdir()) == []

    def test_a_tree_in_itself(self, tmp_path):
        loop: list = []
        loop.append(loop)
        with pytest.raises(FileError, match="deeper than 100 levels"):
            save(tmp_path / "f", "k", loop)

    def test_deepest_tree_that_is_written_can_be_read(self, tmp_path):
        tree: tuple = (1,)
        for _ in range(99):
            tree = (tree,)
        save(tmp_path / "f", "k", tree)
        assert_same(load(tmp_path / "f", "k"), tree)
        with pytest.raises(FileError, match="deeper"):
            save(tmp_path / "f", "k", (tree,))


class TestDamage:
    def test_a_flipped_bit_anywhere(self, tmp_path):
        path = tmp_path / "f"
        save(path, "k", {"a": np.arange(5.0), "b": ["text", 1, (None, True)]})
        good = path.read_bytes()
        for i in range(len(good)):
            path.write_bytes(good[:i] + bytes([good[i] ^ (1 << i % 8)]) + good[i + 1 :])
            # Bytes 0, 1 and 11 to 31 say whose file it is. The frame's length between them and all behind is summed.
            ours = i in range(2, 11) or i >= 11 + 21
            assert ("is damaged" if ours else "is not a jaxtrader file") in load_error(path)
        path.write_bytes(good)
        assert load(path, "k")["b"][0] == "text"

    def test_cut_anywhere_or_too_long(self, tmp_path):
        path = tmp_path / "f"
        save(path, "k", [1, 2, 3])
        good = path.read_bytes()
        for length in range(len(good)):
            path.write_bytes(good[:length])
            says = load_error(path)
            assert ("damaged or incomplete" in says) == (length >= 11 + 21)
        path.write_bytes(good + b"\n")
        assert "damaged or incomplete" in load_error(path)

    def test_no_file_folder_other_file(self, tmp_path):
        assert "there is no file" in load_error(tmp_path / "none")
        assert "is not a file" in load_error(tmp_path)
        (tmp_path / "csv").write_text("time,open\n" * 20)
        assert "is not a jaxtrader file" in load_error(tmp_path / "csv")
        (tmp_path / "pickle").write_bytes(pickle.dumps({"weights": [1.0] * 100}, 4))
        assert "is not a jaxtrader file" in load_error(tmp_path / "pickle")

    def test_other_kind(self, tmp_path):
        save(tmp_path / "f", "checkpoint", {})
        assert "is a 'checkpoint' file, not a 'policy' file" in load_error(tmp_path / "f", "policy")

    def test_newer_version(self, tmp_path, monkeypatch):
        monkeypatch.setattr(files, "VERSION", 2)
        save(tmp_path / "f", "k", {})
        monkeypatch.undo()
        assert "file version 2, and this jaxtrader reads up to 1" in load_error(tmp_path / "f")


def op(code: bytes, fmt: str, *values) -> bytes:
    return code + struct.pack(fmt, *values)


def text(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


def array_of(name: str, shape: bytes, raw: bytes) -> bytes:
    return b"}" + text("__array__") + b"](" + text(name) + shape + b"C" + bytes([len(raw)]) + raw + b"es"


ONE_BY_HUGE = b"](K\x00\x8a\x09" + (2**70).to_bytes(9, "little") + b"e"  # shape [0, 2**70]

# Multiples of 2^61 - 1 have the hash 0 in Python, so that each is compared with all before it.
LONG_KEYS = [b"\x8a\x0a" + (k * (2**61 - 1)).to_bytes(10, "little") + b"N" for k in range(8, 3000)]

FORGED = {
    "reduce os.system": b"cos\nsystem\n" + text("touch OWNED") + b"\x85R",
    "stack global": text("os") + text("system") + b"\x93" + text("touch OWNED") + b"\x85R",
    "global without call": b"cnumpy\nndarray\n",
    "inst": b"(" + text("touch OWNED") + b"ios\nsystem\n",
    "newobj": b"cbuiltins\nbytearray\n)\x81",
    "extension": b"\x82\x01",
    "persistent id": text("x") + b"Q",
    "build": b"}}b",
    "memo bomb": b"N" + op(b"r", "<I", 2**31 - 1),
    "memo at all": b"N\x94",
    "get": b"h\x00",
    "dup": b"]2a",
    "deep tuple key": b"}" + b")" + b"\x85" * 200_000 + b"Ns",
    "BINUNICODE8 length": op(b"\x8d", "<Q", 2**62),
    "BINUNICODE length": op(b"X", "<I", 2**32 - 1),
    "BINBYTES8 length": op(b"\x8e", "<Q", 2**40),
    "BINBYTES8 beyond any": op(b"\x8e", "<Q", 2**64 - 1),
    "BYTEARRAY8 length": op(b"\x96", "<Q", 2**40),
    "LONG4 length": op(b"\x8b", "<i", 2**31 - 1),
    "frame too long": op(b"\x95", "<Q", 2**50) + b"N",
    "other protocol": b"\x80\x05N",
    "text integer": b"I" + b"9" * 5000 + b"\n",
    "unknown opcode": b"\xffN",
    "stack underflow": b"aaaa",
    "unhashable key": b"}]Ns",
    "key not a string": b"}K\x01Ns",
    "bytes as a leaf": b"C\x01x",
    "deep lists": b"]" * 300 + b"a" * 299,
    "very deep lists": b"]" * 100_000 + b"a" * 99_999,
    "array of object": array_of("object", b"](K\x01e", b"\x00" * 8),
    "array of void": array_of("V1000000000", b"](e", b"\x00"),
    "array too large": array_of("float32", b"](J\xff\xff\xff\x7fe", b"\x00" * 4),
    "array too small": array_of("float32", b"](K\x01e", b"\x00" * 8),
    "array of negative side": array_of("int8", b"](J\xff\xff\xff\xffJ\xff\xff\xff\xffe", b"\x00"),
    "array of no bytes and huge side": array_of("int8", ONE_BY_HUGE, b""),
    "array of shape True": array_of("int8", b"](\x88e", b"\x00"),
    "bool of 2": array_of("bool", b"](K\x03e", b"\x00\x02\x01"),
    "array of two fields": b"}" + text("__array__") + b"](K\x01K\x02es",
    "key of unknown implementation": b"}" + text("__key__") + b"](" + text("no") + text("uint32") + b"](eC\x04abcdes",
    "tuple of text": b"}" + text("__tuple__") + text("abc") + b"s",
    "integer of 9 bytes": b"\x8a\x09" + b"\x01" * 9,
    "integer keys of one hash": b"}(" + b"".join(LONG_KEYS) + b"u",
    "more parts than a file may have": b"]" * 2_000_000,
    "array of 65 axes": array_of("int8", b"](" + b"K\x01" * 65 + b"e", b"\x00"),
    "tag among others": b"}(" + text("a") + b"N" + text("__array__") + b"Nu",
}


class TestForgedFiles:
    def test_the_forge_itself_is_good(self, tmp_path):
        """Without this, each case below could fail for the forger's own mistake."""
        tree = b"](" + array_of("int16", b"](K\x02e", b"\x01\x00\x02\x00") + b"K\x07e"
        back = load(forge_tree(tmp_path / "f", tree), "k")
        assert back[0].tolist() == [1, 2]
        assert back[1] == 7

    @pytest.mark.parametrize("name", FORGED)
    def test_refused_fast_and_small(self, tmp_path, monkeypatch, name):
        monkeypatch.chdir(tmp_path)
        path = forge_tree(tmp_path / "f", FORGED[name])
        size = path.stat().st_size
        load_error(path)  # warm: the first error of some kinds imports a module
        tracemalloc.start()
        began = time.perf_counter()
        says = load_error(path)
        seconds = time.perf_counter() - began
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert "jaxtrader never writes" in says
        assert not os.path.exists("OWNED")
        assert peak < 1e6 + 100 * min(size, files.MAX_OPCODES) + 10 * size
        assert seconds < 5

    @pytest.mark.parametrize(
        ("name", "says"),
        [
            # NumPy and pickle would refuse these too, by luck and later: after they have made the array or the room.
            ("array too large", r"an array of float32 and shape \[2147483647\] with 4 bytes"),
            ("integer of 9 bytes", "an integer beyond 8 bytes"),
            ("integer keys of one hash", "an integer beyond 8 bytes"),
            ("more parts than a file may have", "more than 250,000 parts"),
            ("array of 65 axes", r"an array of shape \[1, 1, 1, 1, 1, 1, ...\]"),
            ("frame too long", r"a frame of 1,125,899,906,842,624 bytes at byte \d+, beyond the end"),
        ],
    )
    def test_refused_by_our_own_rule(self, tmp_path, name, says):
        assert re.search(says, load_error(forge_tree(tmp_path / "f", FORGED[name])))

    def test_os_system_does_run_in_plain_pickle(self, tmp_path, monkeypatch):
        """The attack is real: what `load` refuses, `pickle.load` would have run."""
        monkeypatch.chdir(tmp_path)
        path = forge_tree(tmp_path / "f", FORGED["reduce os.system"])
        load_error(path)
        assert not os.path.exists("OWNED")
        with open(path, "rb") as file:
            pickle.load(file)
        assert os.path.exists("OWNED")

    def test_find_class_is_a_second_lock(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(files, "_scan", lambda stream: None)
        path = forge_tree(tmp_path / "f", FORGED["reduce os.system"])
        assert "it asks for os.system" in load_error(path)
        assert not os.path.exists("OWNED")

    @pytest.mark.parametrize("end", [b"u.N", b"u..", b"u", b"."])
    def test_bytes_behind_the_end_or_no_end(self, tmp_path, end):
        load_error(forge_tree(tmp_path / "f", b"N", end))

    @given(st.binary(max_size=40))
    @settings(max_examples=300, deadline=None)
    def test_any_bytes_give_a_tree_or_a_file_error(self, tmp_path_factory, noise):
        path = forge_tree(tmp_path_factory.getbasetemp() / "noise", noise)
        try:
            tree = load(path, "k")
        except FileError:
            load_error(path)
        else:
            save(path, "k", tree)  # what can be read is what can be written
            assert_same(load(path, "k"), tree)


class TestWriting:
    @pytest.mark.parametrize("broken", ["fsync", "replace"])
    def test_a_failed_write_leaves_the_old_file_and_no_other(self, tmp_path, monkeypatch, broken):
        def fail(*args):
            raise OSError(28, "No space left on device")

        save(tmp_path / "f", "k", "old")
        monkeypatch.setattr(files.os, broken, fail)
        with pytest.raises(FileError, match=r"cannot write .*No space left on device"):
            save(tmp_path / "f", "k", "new")
        monkeypatch.undo()
        assert load(tmp_path / "f", "k") == "old"
        assert os.listdir(tmp_path) == ["f"]

    def test_a_killed_process_leaves_the_old_file(self, tmp_path):
        save(tmp_path / "f", "k", "old")
        code = """
            import os, sys
            from jaxtrader import files
            files.os.fsync = lambda handle: os._exit(9)  # written, and the power goes before it is on disk
            files.save(sys.argv[1], "k", "new")
        """
        assert run_python(code, tmp_path / "f") == 9
        assert load(tmp_path / "f", "k") == "old"

    def test_order_is_write_sync_rename_sync_folder(self, tmp_path, monkeypatch):
        calls = []
        fsync, replace = os.fsync, os.replace
        monkeypatch.setattr(files.os, "fsync", lambda h: (calls.append(("sync", os.fstat(h).st_size)), fsync(h)))
        monkeypatch.setattr(files.os, "replace", lambda a, b: (calls.append(("rename", b.name)), replace(a, b)))
        write_text(tmp_path / "f", "12345")
        assert [call[0] for call in calls] == ["sync", "rename", "sync"]
        assert calls[0] == ("sync", 5)

    def test_makes_folders_follows_links_keeps_the_umask(self, tmp_path):
        save(tmp_path / "a" / "b" / "f", "k", 1)
        (tmp_path / "link").symlink_to(tmp_path / "a" / "b" / "f")
        save(tmp_path / "link", "k", 2)
        assert (tmp_path / "link").is_symlink()
        assert load(tmp_path / "a" / "b" / "f", "k") == 2
        (tmp_path / "plain").write_text("")
        assert (tmp_path / "a" / "b" / "f").stat().st_mode == (tmp_path / "plain").stat().st_mode

    def test_a_name_as_long_as_the_system_allows(self, tmp_path):
        save(tmp_path / ("n" * 255), "k", 1)
        assert load(tmp_path / ("n" * 255), "k") == 1

    def test_onto_a_folder(self, tmp_path):
        (tmp_path / "d").mkdir()
        with pytest.raises(FileError, match="cannot write"):
            save(tmp_path / "d", "k", 1)
        assert os.listdir(tmp_path) == ["d"]

    def test_text(self, tmp_path):
        write_text(tmp_path / "config.json", '{"é": 1}\r\n')
        assert (tmp_path / "config.json").read_bytes() == '{"é": 1}\r\n'.encode()
