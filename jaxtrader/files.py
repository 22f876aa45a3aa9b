"""The file format of policies and checkpoints: a pickle of plain containers and its checksum, written atomically.

A file from a stranger is safe to read. Nothing in it is imported or called, and reading takes memory in proportion to
the file's size. The caller turns a train state into nested dicts (`flax.serialization.to_state_dict`), and the loaded
NumPy arrays into device arrays.

A file is the pickle (protocol 4) of `{"format": "jaxtrader", "version": 1, "kind": ..., "tree": ...}`, followed by the
32 raw bytes of its SHA-256. A plain `pickle.load` stops before the sum and gives the same containers. An array is
`{"__array__": [dtype name, shape, little-endian bytes in C order]}`. A typed PRNG key is `{"__key__": [implementation,
dtype name, shape, bytes]}`, and a tuple is `{"__tuple__": [...]}`.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import os
import pickle
import pickletools
import re
import reprlib
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from jaxtrader.printable import printable

FORMAT = "jaxtrader"
VERSION = 1
PROTOCOL = 4
MAX_DEPTH = 100
INT_BYTES = 8  # of an integer: longer ones make dictionaries and products slow
MAX_AXES = 64  # of an array, which is what NumPy allows
# Each takes memory and time, however small the file is. A policy has hundreds, and a checkpoint thousands.
MAX_OPCODES = 250_000
MAX_TEXT = 2**28  # characters of at most 4 bytes, so that BINUNICODE8 is never needed

ARRAY, KEY, TUPLE = "__array__", "__key__", "__tuple__"

_TEMPORARY = re.compile(r"\.[0-9a-f]{12}\.tmp")
_SUM_BYTES = hashlib.sha256().digest_size
_PROTO = bytes([0x80, PROTOCOL])
_FRAME_BYTES = 9  # the FRAME opcode and its length, between PROTO and the first container
# After that each file has EMPTY_DICT, MARK, SHORT_BINUNICODE "format", SHORT_BINUNICODE "jaxtrader".
_HEADER = b"}(\x8c\x06format\x8c\x09" + FORMAT.encode()

# A list of what is allowed, since object arrays are pointers and void types have any size.
_DTYPES: dict[str, np.dtype[Any]] = {
    name: np.dtype(name)
    for name in (
        *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float16", "float32", "float64", "complex64", "complex128"),
    )
} | {"bfloat16": np.dtype(ml_dtypes.bfloat16)}

# Without memo and DUP each object stands in the tree once, so a small file cannot unfold into a large tree.
# Tuples are left out, since the hash of a deeply nested tuple, as a dictionary's key, overflows the C stack.
_OPCODES = frozenset(
    (
        *("PROTO", "FRAME", "MARK", "STOP", "NONE", "NEWTRUE", "NEWFALSE"),
        *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "SHORT_BINUNICODE", "BINUNICODE"),
        *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8"),
        *("EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS"),
    )
)


class FileError(ValueError):
    """A file cannot be written or read.

    The message is one printable sentence with the path, what is wrong, and the way out.

    Example:
        >>> from pathlib import Path
        >>> _ = Path("policy.pkl").write_bytes(b"no policy")
        >>> try:
        ...     jt.load_policy("policy.pkl")
        ... except jt.FileError:
        ...     print("not a sound policy")
        not a sound policy
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def save(path: str | os.PathLike[str], kind: str, tree: Any) -> None:
    """Write `tree` to `path`. After a power failure `path` holds either the old file or the whole new one.

    Args:
        path: the file. Missing folders are made.
        kind: what the file is, such as "policy" or "checkpoint". `load` must be given the same.
        tree: dicts with string keys, lists, tuples, str, int, float, bool, None, NumPy or JAX arrays, NumPy scalars and
            typed PRNG keys, nested up to 100 levels. Scalars come back as arrays without dimensions.

    Raises:
        FileError: the tree holds another type (the message says where), or the file cannot be written.
    """
    write_bytes(path, encoded(kind, tree))


def encoded(kind: str, tree: Any) -> bytes:
    """Return the bytes of a file that holds `tree`. Raises FileError as `save` does."""
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, protocol=PROTOCOL)
    pickler.fast = True  # without the memo, which `load` does not read
    pickler.dump({"format": FORMAT, "version": VERSION, "kind": kind, "tree": _encode(tree, "tree", 0)})
    try:
        _scan(buffer)
    except ValueError as error:
        raise FileError(f"the tree would be a file of {error}, which is not read; save fewer, larger arrays") from error
    buffer.seek(0, os.SEEK_END)
    buffer.write(hashlib.sha256(buffer.getbuffer()).digest())
    return buffer.getvalue()


def load(path: str | os.PathLike[str], kind: str) -> Any:
    """Read what `save` wrote. Arrays come back as writable NumPy arrays, and typed PRNG keys as typed keys.

    Raises:
        FileError: there is no such file, jaxtrader did not write it, it is damaged, it is of another kind, or a newer
            version wrote it.
    """
    data = _read(path)
    if not (data.startswith(_PROTO) and data.startswith(_HEADER, len(_PROTO) + _FRAME_BYTES)):
        raise FileError(f"{str(path)!r} is not a jaxtrader file; pass a {kind} file that jaxtrader wrote")
    body, digest = data[:-_SUM_BYTES], data[-_SUM_BYTES:]
    if hashlib.sha256(body).digest() != digest:
        raise FileError(
            f"{str(path)!r} is damaged or incomplete: its SHA-256 sum over {max(0, len(data) - _SUM_BYTES):,} bytes "
            "does not match; copy it again, or go back to an earlier file"
        )
    try:
        stream = io.BytesIO(body)
        _scan(stream)
        document = _Unpickler(stream).load()
        _check_document(document, path, kind)
        return _decode(document["tree"], 0)
    except FileError:
        raise
    # A forged file may raise any error in pickle or NumPy. The user gets one sentence.
    except Exception as error:
        raise FileError(
            f"{str(path)!r} holds what jaxtrader never writes ({error}) and was not loaded; "
            "use a file from a source you trust"
        ) from error


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` in UTF-8 to `path`, atomically as `save` does. Raises FileError where it cannot be written."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: str | os.PathLike[str], data: bytes, keep: str | os.PathLike[str] | None = None) -> None:
    """Write `data` to `path`, atomically as `save` does. Raises FileError where it cannot be written.

    They go to a temporary file in the same folder, which is flushed to the disk and renamed.

    Args:
        path: the file.
        data: the content of the file.
        keep: where the old file moves to, in the same folder. It moves only when the new one is on the disk, so one of
            the two names holds a whole file at any time.
    """
    target = Path(os.path.realpath(path))  # a link stays a link
    # The name is short: that of the file may be as long as the system allows.
    temporary = target.parent / f".{secrets.token_hex(6)}.tmp"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # `tempfile` makes files that only their owner can read, and the rename would keep that.
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if keep is not None and target.exists():
            os.replace(target, keep)
        os.replace(temporary, target)
        _sync_folder(target.parent)
    except OSError as error:
        raise FileError(
            f"cannot write {str(path)!r}: {error.strerror or error}; choose another place or make room there"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def temporaries(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the unfinished files that a killed process has left in a folder."""
    return [path for path in Path(folder).glob(".*.tmp") if _TEMPORARY.fullmatch(path.name)]


# Writing


def _encode(node: Any, where: str, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise FileError(f"{where[:80]}... is nested deeper than {MAX_DEPTH} levels; save a flatter tree")
    if node is None or type(node) in (bool, float):
        return node
    if type(node) is int:
        limit = 1 << 8 * INT_BYTES - 1
        return _checked(node, -limit <= node < limit, where, f"an integer beyond {INT_BYTES} bytes")
    if type(node) is str:
        return _checked(node, len(node) <= MAX_TEXT, where, f"a text beyond {MAX_TEXT:,} characters")
    if type(node) is dict:
        return {_checked_key(key, where): _encode(child, f"{where}[{key!r}]", depth + 1) for key, child in node.items()}
    if type(node) in (list, tuple):
        children = [_encode(child, f"{where}[{i}]", depth + 1) for i, child in enumerate(node)]
        return children if type(node) is list else {TUPLE: children}
    if _is_jax_array(node):
        return _encode_jax(node, where)
    if isinstance(node, np.ndarray | np.generic):
        return {ARRAY: _encode_array(np.asarray(node), where)}
    raise FileError(
        f"{where} is a {type(node).__name__}, which has no place in a file; turn it into dicts, lists, tuples, "
        "numbers, strings and arrays first (flax.serialization.to_state_dict does so for a train state)"
    )


def _checked(node: Any, fits: bool, where: str, what: str) -> Any:
    if not fits:
        raise FileError(f"{where} is {what}, which a file does not hold; save it as an array")
    return node


def _checked_key(key: Any, where: str) -> str:
    if type(key) is not str:
        raise FileError(
            f"{where} has the key {key!r} of type {type(key).__name__}; only strings can be keys, use str(key)"
        )
    if key in (ARRAY, KEY, TUPLE):
        raise FileError(f"{where} has the key {key!r}, which the file format uses itself; rename it")
    return key


def _is_jax_array(node: Any) -> bool:
    # Where JAX is not imported no JAX array exists, and the import would take time for nothing.
    jax = sys.modules.get("jax")
    return jax is not None and hasattr(jax, "Array") and isinstance(node, jax.Array)


def _encode_jax(node: Any, where: str) -> dict[str, Any]:
    import jax

    if jax.dtypes.issubdtype(node.dtype, jax.dtypes.prng_key):
        data = np.asarray(jax.random.key_data(node))
        return {KEY: [str(jax.random.key_impl(node)), *_encode_array(data, where)]}
    return {ARRAY: _encode_array(np.asarray(node), where)}


def _encode_array(array: np.ndarray, where: str) -> list[Any]:
    name = array.dtype.name
    if name not in _DTYPES:
        raise FileError(
            f"{where} is an array of {name}, which a file does not hold; convert it to one of {', '.join(_DTYPES)}"
        )
    # The bytes are little-endian, as is every machine that JAX runs on.
    return [name, list(array.shape), array.astype(_DTYPES[name], copy=False).tobytes()]


def _sync_folder(folder: Path) -> None:
    # The rename is on disk only when the folder is. Windows cannot open a folder and does not need to.
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# Reading


class _Unpickler(pickle.Unpickler):
    """An Unpickler that imports nothing. `_scan` refuses such files before, so this is a second safeguard."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it asks for an object outside the file")


def _read(path: str | os.PathLike[str]) -> bytes:
    if not os.path.exists(path):
        raise FileError(f"there is no file {str(path)!r}; check the path")
    if not os.path.isfile(path):  # a device or a pipe may never end
        raise FileError(f"{str(path)!r} is not a file but a folder or a device; pass the path of a file in it")
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise FileError(f"cannot read {str(path)!r}: {error.strerror or error}; check its permissions") from error


def _scan(stream: io.BytesIO) -> None:
    """Read a stream from its beginning, and put it back there. No copy is made of it.

    Raise ValueError unless every opcode is in `_OPCODES`, every frame fits, and STOP is the last byte.

    `genops` runs nothing and reads from memory, so a length beyond the end is an error and allocates nothing.
    """
    end, size, limit = 0, stream.seek(0, os.SEEK_END), 1 << 8 * INT_BYTES - 1
    stream.seek(0)
    for count, (opcode, argument, position) in enumerate(pickletools.genops(stream)):
        at = end = position or 0  # genops knows the position in bytes
        if count == MAX_OPCODES:
            raise ValueError(f"more than {MAX_OPCODES:,} parts")
        if opcode.name not in _OPCODES:
            raise ValueError(f"the pickle opcode {opcode.name} at byte {at}")
        if opcode.name == "LONG1" and not -limit <= int(argument or 0) < limit:
            raise ValueError(f"an integer beyond {INT_BYTES} bytes at byte {at}")
        if opcode.name == "FRAME" and int(argument or 0) > size - at - _FRAME_BYTES:
            raise ValueError(f"a frame of {argument:,} bytes at byte {at}, beyond the end")
        if opcode.name == "PROTO" and (argument, at) != (PROTOCOL, 0):
            raise ValueError(f"pickle protocol {argument} at byte {at}")
    if end != size - 1:
        raise ValueError(f"{size - 1 - end:,} bytes behind its end")
    stream.seek(0)


def _check_document(document: Any, path: str | os.PathLike[str], kind: str) -> None:
    version = document["version"]
    if type(version) is not int or version < 1:
        raise ValueError(f"the version {version!r:.40}")
    if version > VERSION:
        raise FileError(
            f"{str(path)!r} has file version {version}, and this jaxtrader reads up to {VERSION}; "
            "install a newer jaxtrader"
        )
    if document["kind"] != kind:
        raise FileError(
            f"{str(path)!r} is a {str(document['kind'])[:40]!r} file, not a {kind!r} file; pass a {kind!r} file"
        )
    if set(document) != {"format", "version", "kind", "tree"}:
        raise ValueError("other fields than format, version, kind and tree")


def _decode(node: Any, depth: int) -> Any:
    if depth > 2 * MAX_DEPTH:  # a tuple is two levels of the file
        raise ValueError(f"a tree deeper than {MAX_DEPTH} levels")
    if type(node) is list:
        return [_decode(child, depth + 1) for child in node]
    if type(node) is bytes:
        raise ValueError("bytes outside an array")
    if type(node) is not dict:
        return node
    tag = next(iter(node)) if len(node) == 1 else None
    if tag in _DECODERS:
        return _DECODERS[tag](node[tag], depth)
    for key in node:
        if type(key) is not str or key in _DECODERS:
            raise ValueError(f"the key {key!r:.40}")
    return {key: _decode(child, depth + 1) for key, child in node.items()}


def _decode_tuple(children: Any, depth: int) -> tuple[Any, ...]:
    if type(children) is not list:
        raise ValueError("a tuple that is not a list")
    return tuple(_decode(child, depth + 2) for child in children)


def _decode_array(fields: Any, depth: int) -> np.ndarray:
    name, shape, raw = fields
    if type(name) is not str or name not in _DTYPES:
        raise ValueError(f"an array of {name!r:.40}")
    dtype = _DTYPES[name]
    if type(raw) is not bytes or type(shape) is not list or len(shape) > MAX_AXES:
        raise ValueError(f"an array of shape {reprlib.repr(shape)}")
    if any(type(n) is not int or n < 0 for n in shape):
        raise ValueError(f"an array of shape {reprlib.repr(shape)}")
    if math.prod(shape) * dtype.itemsize != len(raw):
        raise ValueError(f"an array of {name} and shape {reprlib.repr(shape)} with {len(raw):,} bytes")
    if name == "bool" and raw.strip(b"\x00\x01"):
        raise ValueError("an array of bool with values beyond 0 and 1")
    return np.frombuffer(raw, dtype).reshape(shape).copy()  # a view of `raw` would be read-only


def _decode_key(fields: Any, depth: int) -> Any:
    import jax

    implementation, *array = fields
    if type(implementation) is not str:
        raise ValueError(f"a key of {implementation!r:.40}")
    return jax.random.wrap_key_data(jax.numpy.asarray(_decode_array(array, depth)), impl=implementation)


_DECODERS: dict[str, Callable[[Any, int], Any]] = {ARRAY: _decode_array, KEY: _decode_key, TUPLE: _decode_tuple}
