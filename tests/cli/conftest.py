"""What all tests of the command share: one tiny run, which is read only."""

import contextlib
import io

import pytest
from cli.tiny_runs import SMALL, pair

from jaxtrader.cli import main
from jaxtrader.report import evidence


@contextlib.contextmanager
def rotated_rarely():
    """The test of timing of each result rotates it 20 times, and not 1000 times."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evidence, "ROTATIONS", (20, 20))
        yield


@pytest.fixture(scope="module", autouse=True)
def few_rotations():
    """`rotated_rarely` in each module of the folder, and in no other."""
    with rotated_rarely():
        yield


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A folder with a file of two symbols, a run trained on it, and what the training printed."""
    folder = tmp_path_factory.mktemp("cli")
    pair().to_csv(folder / "two.csv", index=False)
    out = io.StringIO()
    with rotated_rarely(), pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
        patch.chdir(folder)
        assert main(["train", "--data", "two.csv", *SMALL, "--total-steps", "500"]) == 0
    return folder, out.getvalue()
