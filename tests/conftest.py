"""What tests share: a small trained run, the real images."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

# Several test processes share the processors: each, with what it starts, gets its share. Set before torch is imported.
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))

import pytest
from commands import ROOT, SMALL, Finished, measured

sys.path.append(str(ROOT / "scripts"))  # foreign.py, run_readers.py: tests and scripts/fuzz.py both use them


@pytest.fixture(scope="session", autouse=True)
def a_state_folder_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Code that tests train with must not become trusted for the user who runs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="module", autouse=True)
def auto_is_the_cpu(request: pytest.FixtureRequest) -> Iterator[None]:
    """In all tests but CUDA's own, `--device auto` means the CPU, even on a machine with a GPU."""
    with pytest.MonkeyPatch.context() as patch:
        if request.path.name != "test_cuda.py":
            patch.setenv("CUDA_VISIBLE_DEVICES", "")  # for the commands that tests start
            patch.setattr("torch.cuda.is_available", lambda: False)
        yield


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on glyphs; tests must not change it."""
    from fewshot import train
    from fewshot.core import console

    folder = tmp_path_factory.mktemp("runs") / "small"
    assert console.run(train.main, [*SMALL, "--reg", "targetdrop", "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def hears_hangup() -> Iterator[None]:
    """Processes started by the test react to SIGHUP, even if nohup has told this one to ignore it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(scope="session")
def mini_imagenet_source() -> Path:
    """The real images, not yet prepared; without them, tests are skipped, or fail if the images are required."""
    source = Path(os.environ.get("FEWSHOT_TEST_MINI_IMAGENET", ROOT.parent / "shared" / "data" / "mini-imagenet"))
    if not source.is_dir():
        message = f"mini-ImageNet is not at {source}; FEWSHOT_TEST_MINI_IMAGENET names another place"
        if os.environ.get("FEWSHOT_REQUIRE_DATA") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return source


@pytest.fixture(scope="session")
def mini_imagenet(
    mini_imagenet_source: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, Finished]]:
    """The data root in which the real images were prepared, and the command that did it."""
    root = tmp_path_factory.mktemp("prepared")
    yield root, measured("prepare", "mini-imagenet", "--from", mini_imagenet_source, "--data-root", root)
    shutil.rmtree(root)  # 1.3 GB
