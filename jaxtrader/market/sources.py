"""Finds the price files behind a path, which may be a folder or an archive, and opens them unpacked.

Only regular files are read. What unpacks to far more than it should is stopped, and files of other kinds are named.
"""

import bz2
import dataclasses
import gzip
import io
import json
import lzma
import re
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from jaxtrader.market.errors import DataError, listed, shown
from jaxtrader.printable import printable

# A packed file may unpack to this many bytes, or to this many times its size. Prices as text pack 3 to 20 times.
UNPACKED_BYTES = 128 << 20
UNPACKED_RATIO = 100
SUFFIXES = (
    ".csv",
    ".txt",
    ".tsv",
    ".dat",
    ".parquet",
    ".pq",
    ".gz",
    ".bz2",
    ".xz",
    ".zip",
)  # of a folder's price files
PROSE = ("readme", "license", "licence")  # how the names of files of text begin that hold no prices
PACKED_SUFFIXES = (".gz", ".bz2", ".xz")
PARQUET = b"PAR1"
PACKED: dict[bytes, Callable[[BinaryIO], object]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}
DAMAGED = (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, RuntimeError, NotImplementedError)
# The first bytes of other kinds of files: what they are, and the line of pandas that reads one.
FOREIGN = (
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Excel file", "pd.read_excel({path})"),
    (b"ARROW1", "a Feather file", "pd.read_feather({path})"),
    (b"ORC", "an ORC file", "pd.read_orc({path})"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", "pd.read_hdf({path})"),
    (b"SQLite format 3\x00", "an SQLite database", "pd.read_sql('SELECT * FROM prices', 'sqlite:///' + {path})"),
    (b"\x93NUMPY", "a NumPy file", "pd.DataFrame(np.load({path}))"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", "pd.read_csv({path}, compression='zstd')"),
    (b"%PDF-", "a PDF", ""),
    (b"\x80\x04\x95", "a pickle", ""),
    (b"\x80\x05\x95", "a pickle", ""),
    (b"Rar!\x1a\x07", "a RAR archive", ""),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", ""),
)
HTML = re.compile(r"\s*<(?:!doctype\s+html|html|head|body|table|div|script|meta)\b", re.IGNORECASE)
XML = re.compile(r"\s*<(?:\?xml|!--)", re.IGNORECASE)
JSON = re.compile(r"\s*(?:\{\s*[\"}]|\[\s*[\[\]{])")
JSON_BYTES = 64 << 20


@dataclasses.dataclass(frozen=True)
class File:
    """A file that may hold prices.

    Attributes:
        name: what messages call it, printable.
        stem: its name without suffixes, printable, which names the symbol of a file without a symbol column.
        path: the path as it is on the disk, for the line that converts it.
        packed: bytes on the disk.
        open_packed: a function that opens it from its beginning, as it is on the disk.
    """

    name: str
    stem: str
    path: str
    packed: int
    open_packed: Callable[[], BinaryIO]

    def open(self) -> "BinaryIO":
        """Open the file unpacked, from its beginning."""
        file = self.open_packed()
        magic = file.read(8)
        file.close()
        file = self.open_packed()
        for start, unpack in PACKED.items():
            if magic.startswith(start):
                return _limited(cast(BinaryIO, unpack(file)), self)
        return file if isinstance(file, io.BufferedReader) else _limited(file, self)

    @property
    def limit(self) -> int:
        """The most bytes to which it may unpack."""
        return max(UNPACKED_BYTES, UNPACKED_RATIO * self.packed)

    def check_unpacked(self, size: int) -> None:
        """Raise DataError where the file unpacks to more bytes than it may."""
        if size > self.limit:
            raise DataError(
                f"{self.name} has {self.packed:,} bytes and unpacks to more than {self.limit >> 20:,} MiB, which is no "
                "price file; unpack it yourself and give the plain file if it is one"
            )


def files_of(path: Path) -> tuple[tuple[File, ...], str | None]:
    """Return the file at a path, or those in a folder or zip archive by their names, and a note on those left out.

    Raises:
        DataError: there is nothing to read at the path.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            members = sorted(member for member in path.iterdir() if not member.name.startswith("."))
            return _price_files(path, [(member.name, member) for member in members if member.is_file()])
        if not stat.S_ISREG(mode):
            raise DataError(
                f"{path} is a pipe or a device, which can be read only once; save its text to a file and give that"
            )
        with path.open("rb") as file:
            magic = file.read(4)
        if magic == b"PK\x03\x04":
            return _zipped(path)
    except OSError as error:
        raise DataError(
            f"{shown(path, 200)} cannot be read ({error.strerror or error}); check the path and your permission to "
            "read it"
        ) from error
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"'{shown(path)}' is not a path ({error}); give the path of a file") from error
    return (_on_disk(path, path.name),), None


def _on_disk(path: Path, name: str) -> File:
    return File(printable(name), _stem(path.name), str(path), path.stat().st_size, lambda: path.open("rb"))


def _stem(name: str) -> str:
    name = printable(name)
    for suffix in PACKED_SUFFIXES:
        name = name.removesuffix(suffix)
    return name.rsplit(".", 1)[0] or name


def _price_files(folder: Path, entries: list[tuple[str, Path]]) -> tuple[tuple[File, ...], str | None]:
    """The price files of a folder."""
    files: list[File] = []
    left_out = []
    for name, path in entries:
        if not _may_hold_prices(name):
            left_out.append(name)
        elif name.lower().endswith(".zip"):
            files += files_of(path)[0]
        else:
            files.append(_on_disk(path, f"{folder.name}/{name}"))
    if not files:
        raise DataError(
            f"{folder} is a folder without price files ({', '.join(SUFFIXES)}); give the path of one, or of a folder "
            "with a file for each symbol"
        )
    return tuple(files), _left_out(left_out)


def _zipped(path: Path) -> tuple[tuple[File, ...], str | None]:
    """The price files of a zip archive. An Excel file is one, too, and is named."""
    try:
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]  # IndexError: one without a name
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, IndexError) as error:
        raise DataError(f"{path.name} is a damaged or cut-off zip archive; write or download it again") from error
    names = [info.filename for info in infos]
    if "[Content_Types].xml" in names:
        raise _is_foreign(path.name, str(path), "an Excel file", "pd.read_excel({path})")
    if any(name.endswith(".npy") for name in names):
        raise _is_foreign(path.name, str(path), "a NumPy file", "pd.DataFrame(dict(np.load({path})))")
    wanted, left_out = [], []
    for info in infos:
        base = info.filename.rsplit("/", 1)[-1]
        if base.startswith(".") or info.filename.startswith("__MACOSX"):
            continue
        (wanted if _may_hold_prices(base) or len(infos) == 1 else left_out).append((base, info))
    if not wanted:
        raise DataError(
            f"{path.name} is a zip archive without price files; it holds {', '.join(map(shown, names[:5])) or 'none'}"
        )
    if any(info.flag_bits & 1 for _, info in wanted):
        raise DataError(f"{path.name} is encrypted; unpack it and give the file or the folder")

    def opener(info: zipfile.ZipInfo) -> Callable[[], BinaryIO]:
        return lambda: cast(BinaryIO, zipfile.ZipFile(path).open(info))

    files = tuple(
        File(f"{path.name}/{shown(base, 100)}", _stem(base), str(path), info.compress_size, opener(info))
        for base, info in wanted
    )
    return files, _left_out([base for base, _ in left_out])


def _may_hold_prices(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.lower().startswith(PROSE)


def _left_out(names: list[str]) -> str | None:
    return f"Files that are no tables by their names were left out: {listed(names, 3)}." if names else None


class _Limited(io.RawIOBase):
    """A stream that counts what is read, and stops where a file unpacks to far more than prices do."""

    def __init__(self, stream: BinaryIO, file: File) -> None:
        self._stream, self._file, self._count = stream, file, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:  # type: ignore[override]
        data = self._stream.read(len(buffer))
        self._count += len(data)
        self._file.check_unpacked(self._count)
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


def _limited(stream: BinaryIO, file: File) -> BinaryIO:
    return io.BufferedReader(_Limited(stream, file), 1 << 16)


def refuse_foreign(file: File, head: bytes, text: str | None) -> None:
    """Raise DataError where the beginning of a file is that of another kind, such as JSON, with the line to convert it.

    Args:
        file: the file.
        head: the first bytes of the file, unpacked.
        text: these bytes as text. None where they are no text.
    """
    for start, kind, line in FOREIGN:
        if head.startswith(start):
            raise _is_foreign(file.name, file.path, kind, line)
    if head.startswith(b"PK\x03\x04"):
        raise DataError(f"{file.name} is an archive in an archive; unpack it and give the file or the folder")
    if text is None:
        return
    if HTML.match(text):
        raise _is_foreign(file.name, file.path, "a page of HTML", "pd.read_html({path})[0]")
    if XML.match(text):
        raise _is_foreign(file.name, file.path, "XML", "pd.read_xml({path})")
    if JSON.match(text):
        raise _is_foreign(file.name, file.path, "JSON", _json_line(file))


def _is_foreign(name: str, path: str, kind: str, line: str) -> DataError:
    if not line:
        return DataError(f"{name} is {kind}, not CSV; export its table as CSV")
    source = re.split(r"[/\\]", name)[-1]
    stem = re.sub(r"\.\w+$", "", source)
    # The line must not write over its source, which may have another name in a folder that ignores case.
    target = f"{stem}.csv" if f"{stem}.csv".lower() != source.lower() else f"{stem}_table.csv"
    return DataError(
        f"{name} is {kind}, not CSV; convert it with: {line.format(path=repr(path))}.to_csv({target!r}, index=False)"
        + ("" if "np." not in line else ", where np is NumPy")
    )


def _json_line(file: File) -> str:
    """The call of pandas that makes a frame of this JSON. It leaves dates alone, as it would guess at 01/02/2024."""
    with file.open() as stream:
        raw = stream.read(JSON_BYTES)
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError):
        return "pd.read_json({path}, lines=True, convert_dates=False)"  # an object a line
    found = max(_tables(content), key=lambda table: table[0], default=None)
    if found is None:
        return "pd.read_json({path})"
    _, place, orient = found
    keys = "".join(f"[{key!r}]" for key in place).replace("{", "{{").replace("}", "}}")
    opened = f"json.load(open({{path}})){keys}"
    if orient == "index":  # rows by their times
        return f"pd.DataFrame.from_dict({opened}, orient='index').rename_axis('time').reset_index()"
    named = ".rename_axis('time').reset_index()" if orient == "columns" else ""
    if not place:
        return "pd.read_json({path}, convert_axes=False, convert_dates=False)" + named
    return f"pd.DataFrame({opened}){named}"


def _tables(content: object, place: tuple[str, ...] = ()) -> Iterator[tuple[int, tuple[str, ...], str]]:
    """The tables in JSON: how many rows, under which keys, and whether times name them ("index", "columns") or not."""
    if len(place) > 4:
        return
    if isinstance(content, list):
        if content and isinstance(content[0], dict | list):
            yield len(content), place, "records"
        for number, value in enumerate(content[:1]):
            yield from _tables(value, (*place, number))  # type: ignore[arg-type]
        return
    if not isinstance(content, dict):
        return
    values, names = list(content.values()), {str(key).lower() for key in content}
    if {"open", "close"} <= names and all(isinstance(value, dict | list) for value in values):
        inner = next(iter(values[0]), "")
        yield len(values[0]), place, "columns" if isinstance(values[0], dict) and len(str(inner)) >= 8 else "records"
    elif len(values) > 1 and all(isinstance(value, dict) and len(value) > 3 for value in values):
        yield len(values), place, "index"
    else:
        for key, value in content.items():
            yield from _tables(value, (*place, str(key)))
