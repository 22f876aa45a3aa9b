"""The folder of a run: how it is made, who may write to it, and what a killed run leaves there."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import time
from collections.abc import Generator, Iterable
from os import PathLike
from pathlib import Path

from jaxtrader import files
from jaxtrader.files import FileError
from jaxtrader.run_files import BACK, CHECKPOINTS, CONFIG_JSON, CONFIG_TOML, METRICS, START, SWEEP, WALK_FORWARD
from jaxtrader.training.metrics_log import check_log

LOOKS, LOOK_SECONDS = 3, 0.02  # how often a lock is tried, and the time in between
_PART = re.compile(r"(seed|fold|config)-\d+")  # the folder of a seed, fold or configuration within a larger run
BEFORE_TRAINING = {CONFIG_TOML, CONFIG_JSON, METRICS, START, WALK_FORWARD}  # the files before the first checkpoint


def make_run_dir(run_dir: str | PathLike[str] | None, name: str) -> Path:
    """Create and return the folder of a new run.

    Args:
        run_dir: the folder: new, empty, or of a run that was killed before it saved anything. None takes the next free
            `runs/NAME-0001`.
        name: the NAME.

    Raises:
        FileExistsError: the folder holds files already, or is a file.
        FileError: another training writes to the folder.
        OSError: the folder cannot be made.
    """
    if run_dir is not None:
        path = Path(run_dir)
        refuse_full(path)
        _make_folder(path, exist_ok=True)
        return path
    number = 1
    while True:
        path = Path("runs") / f"{name}-{number:04d}"
        try:
            _make_folder(path, exist_ok=False)
        except FileExistsError:
            number += 1
        else:
            return path


def refuse_full(path: Path) -> None:
    """Raise FileExistsError where a new run would mix its files with others, or would overwrite a run.

    Raises FileError where a training writes to the folder.
    """
    if path.is_file():
        raise FileExistsError(f"{path} is a file: give another run folder")
    if not path.exists():
        return
    _refuse_in_use(path)  # also a folder whose training is just compiling
    if holds_nothing(path):
        return
    if is_run(path):
        raise FileExistsError(
            f"{path} is not empty: it holds a run, which `{resume_command(path)}` continues; give another folder, or "
            "move this one away"
        )
    raise FileExistsError(f"{path} is not empty: give another folder, or move this one away")


def holds_nothing(folder: Path) -> bool:
    """Whether a folder is empty, or holds only what a run leaves that was killed before its first record."""
    names = {path.name for path in folder.iterdir()} - {path.name for path in files.temporaries(folder)}
    # The log is a run's first file. Where it is missing, a config.toml is the user's own.
    return not names or (METRICS in names <= BEFORE_TRAINING and not (folder / METRICS).stat().st_size)


def is_run(folder: Path) -> bool:
    """Return whether a training has begun in the folder, or in the folder of one of its seeds or folds."""
    return any((folder / name).is_file() for name in (METRICS, *CHECKPOINTS)) or any(
        map(is_run, (*member_folders(folder), *fold_folders(folder)))
    )


def has_checkpoint(folder: Path) -> bool:
    """Return whether a training of one seed has saved a checkpoint."""
    return any((folder / name).is_file() for name in CHECKPOINTS)


def needs_start(run_dir: Path, seeds: Iterable[int]) -> bool:
    """Return whether one of a run's seeds has no checkpoint, so that it begins anew where the run is resumed."""
    seeds = list(seeds)
    folders = [member_folder(run_dir, seed) for seed in seeds] if len(seeds) > 1 else [run_dir]
    return not all(map(has_checkpoint, folders))


def member_folder(run_dir: Path, seed: int) -> Path:
    """Return the folder of the training with this seed, where a run has several."""
    return run_dir / f"seed-{seed}"


def member_folders(run_dir: Path) -> list[Path]:
    """Return the folders of a run's seeds, in order. A run of one seed has none."""
    return _numbered(run_dir, "seed-")


def fold_folders(run_dir: Path) -> list[Path]:
    """Return the folders of a walk-forward's folds, in order. Another run has none."""
    return _numbered(run_dir, "fold-")


def _numbered(run_dir: Path, prefix: str) -> list[Path]:
    found = [path for path in run_dir.glob(f"{prefix}*") if path.name.removeprefix(prefix).isdecimal()]
    return sorted(found, key=lambda path: int(path.name.removeprefix(prefix)))


def contents(run_dir: Path) -> dict[str, bytes]:
    """Return the content of all files that resuming a run reads, those of its seeds included, by their paths in it."""
    names = (METRICS, *CHECKPOINTS, BACK, START)
    paths = [folder / name for folder in (run_dir, *member_folders(run_dir)) for name in names]
    return {str(path.relative_to(run_dir)): path.read_bytes() for path in paths if path.is_file()}


def folder_of_runs(run_dir: Path) -> Path:
    """Return the folder in which a run stands among others, where evaluations of the same bars are counted.

    A seed, a fold or a configuration belongs to the run around it.
    """
    path = run_dir.resolve()
    while (path.parent / METRICS).is_file():
        path = path.parent
    return path.parent


def find_run(run_dir: str | PathLike[str] | None) -> Path:
    """Return the folder of a run that is to be resumed.

    Raises:
        ValueError: no folder is named.
        FileNotFoundError: there is no such run.
        FileError: another training writes to the folder.
    """
    if run_dir is None:
        raise ValueError("`resume` needs the folder of the run; give `run_dir`")
    path = Path(run_dir)
    if not path.is_dir():
        raise FileNotFoundError(f"there is no run {path} to resume; check the path, or train without `resume`")
    if not (is_run(path) or holds_nothing(path)):
        raise FileNotFoundError(f"{path} holds no run to resume, which would have a {METRICS}; check the path")
    _refuse_in_use(path)
    return path


def resume_command(folder: Path) -> str:
    """Return the command or Python call that resumes a run. A seed, fold or configuration belongs to a larger run."""
    run = folder
    while _PART.fullmatch(run.name) and (run.parent / METRICS).is_file():
        run = run.parent
    if (run / SWEEP).is_file():
        if (folder / CONFIG_TOML).is_file() or (folder.parent / CONFIG_TOML).is_file():
            return "the same jaxtrader sweep"
        return f"jaxtrader.sweep(..., run_dir={str(run)!r}, resume=True)"
    is_walk_forward = bool(fold_folders(run))
    if (run / CONFIG_TOML).is_file():
        return shlex.join(["jaxtrader", "walk-forward" if is_walk_forward else "train", "--resume", str(run)])
    if is_walk_forward:
        return f"jaxtrader.walk_forward(..., run_dir={str(run)!r}, resume=True)"
    return f"Trainer(..., run_dir={str(run)!r}).train(resume=True)"


@contextlib.contextmanager
def only_writer(folder: Path) -> Generator[None]:
    """Lock a run folder for this process, and delete the unfinished files of a killed one.

    The operating system holds the lock on the metrics file. It ends with the process, however that ends.

    Raises:
        FileError: another training writes to the folder, or the metrics file cannot be opened.
    """
    path = folder / METRICS
    check_log(path)
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise FileError(
            f"cannot write metrics to {str(path)!r}: {error.strerror or error}; choose another place"
        ) from error
    try:
        if not _lock_soon(handle):
            raise FileError(
                f"{folder} is in use: another training writes to it; wait until it ends, or give another run folder"
            )
        for temporary in files.temporaries(folder):
            with contextlib.suppress(OSError):
                temporary.unlink()
        yield
    finally:
        os.close(handle)  # which ends the lock


def is_written(folder: Path) -> bool:
    """Return whether a training writes to the folder at this moment. Nothing is changed.

    Raises FileError where the log is no regular file.
    """
    check_log(folder / METRICS)
    try:
        handle = os.open(folder / METRICS, os.O_RDONLY)
    except OSError:
        return False
    try:
        return not _lock(handle, shared=True)
    finally:
        os.close(handle)


def _refuse_in_use(folder: Path) -> None:
    if (folder / METRICS).exists():
        with only_writer(folder):
            pass


def _lock_soon(handle: int) -> bool:
    """Lock an open file. Try for a moment, since `is_written` of another process may hold it just then."""
    for _ in range(LOOKS):
        if _lock(handle):
            return True
        time.sleep(LOOK_SECONDS)
    return False


def _lock(handle: int, shared: bool = False) -> bool:
    """Lock an open file, `shared` together with others. Return False where another process has locked it."""
    try:
        if os.name == "nt":
            import msvcrt

            # Windows also locks a range against reading, so this one lies far behind the end.
            os.lseek(handle, 2**40, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # pyrefly: ignore
        else:
            import fcntl

            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return True  # some network file systems have no locks: training goes on without one
    return True


def _make_folder(path: Path, exist_ok: bool) -> None:
    """Make a folder. Any error but FileExistsError becomes one sentence."""
    try:
        path.mkdir(parents=True, exist_ok=exist_ok)
    except FileExistsError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(f"the run folder {path} cannot be made ({reason}); give another, where you may write") from error
