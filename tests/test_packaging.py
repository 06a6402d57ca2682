"""An editable install and a wheel run the main job from another folder; an sdist gives the same wheel.

Torch is not installed again: each virtual environment sees the packages of the one that runs the tests.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from commands import ROOT, SMALL

pytest.importorskip("setuptools", minversion="77", reason="builds with setuptools: pip install -e '.[test]'")

HOOK = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"
MAIN_JOB = """
import sys

import fewshot
from fewshot import train
from fewshot.core import console
from fewshot.data import open_dataset, specs
from fewshot.episodes import frozen

print(fewshot.__file__)
print(specs.get("mini-imagenet").splits.stat().st_size, *frozen.names())
print(len(open_dataset("glyphs")["test"].classes), [frozen.read(name).episodes for name in frozen.names()])
sys.exit(console.run(train.main, sys.argv[1:]))
"""


def python(*args: str | Path, executable: str | Path = sys.executable, cwd: Path) -> str:
    """What a process printed. It must succeed, and does not find this checkout through PYTHONPATH."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "FEWSHOT_DATA")}
    done = subprocess.run(
        [executable, *map(str, args)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def sources() -> list[str]:
    """The files of this project: what git knows or would add; in an unpacked sdist, what its SOURCES.txt lists."""
    if (ROOT / ".git").exists():
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    else:
        names = (ROOT / "fewshot.egg-info/SOURCES.txt").read_text().splitlines()
    return [name for name in names if (ROOT / name).is_file() and ".egg-info/" not in name]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this project, in which data were prepared and runs made."""
    folder = tmp_path_factory.mktemp("checkout")
    litter = [
        "data/mini-imagenet/train.npy", "data/mini-imagenet/dataset.json", "runs/mine/config.json", ".venv/pyvenv.cfg",
        "tests/__pycache__/test_train.cpython-311.pyc", "results/__pycache__/x.pyc",
    ]  # fmt: skip
    for name in [*sources(), *litter]:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"" if name in litter else (ROOT / name).read_bytes())
    return folder


@pytest.fixture(scope="module")
def sdist(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str]]:
    """The unpacked sdist's folder, and the files that it came with."""
    folder = tmp_path_factory.mktemp("sdist")
    python("-c", HOOK, "build_sdist", folder, cwd=checkout)
    (archive,) = folder.iterdir()
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
        names = {member.name.partition("/")[2] for member in file if member.isfile()}
    archive.unlink()
    return next(folder.iterdir()), names


def wheel(checkout: Path, folder: Path) -> Path:
    """The wheel that is built from a checkout or an sdist."""
    folder.mkdir()
    python("-c", HOOK, "build_wheel", folder, cwd=checkout)
    (built,) = folder.iterdir()
    return built


def contents(built: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(built) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def installed(folder: Path, *what: str | Path) -> Path:
    """The Python of a new virtual environment, in which `what` is installed."""
    python("-m", "venv", "--without-pip", folder, cwd=folder.parent)
    executable = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    purelib = python(
        "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", executable=executable, cwd=folder
    ).strip()
    seen = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (Path(purelib) / "outer.pth").write_text("\n".join(seen))
    flags = ("--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check")
    python("-m", "pip", "--python", executable, "install", *flags, *what, cwd=folder)
    return executable


def runs_the_main_job(executable: Path, package: Path, folder: Path) -> None:
    flags = [*SMALL, "--head", "proto", "--reg", "targetdrop", "--out", folder / "run"]
    out = python("-c", MAIN_JOB, *flags, executable=executable, cwd=folder).splitlines()
    assert Path(out[0]).resolve().is_relative_to(package.resolve())
    lists = sorted(path.stem for path in (ROOT / "episodes").glob("*.json"))
    assert out[1].split() == [str((ROOT / "data/splits/mini-imagenet.csv").stat().st_size), *lists]
    assert out[2] == f"94 {[10_000] * len(lists)}"
    assert (folder / "run/result.json").is_file()


def test_an_editable_install_reads_the_checkouts_own_files(checkout, tmp_path):
    (tmp_path / "fewshot" / "docs").mkdir(parents=True)  # as beside a checkout, which git clone calls fewshot
    runs_the_main_job(installed(tmp_path / "venv", "-e", checkout), checkout, tmp_path)


def test_a_wheel_has_what_it_needs_and_nothing_that_was_prepared(checkout, sdist, tmp_path):
    built = wheel(checkout, tmp_path / "wheel")
    files = contents(built)
    shipped = {name for name in files if "/_shipped/" in name}
    assert shipped == {f"fewshot/_shipped/{name}" for name in sources() if name.startswith(("data/", "episodes/"))}
    assert {name.split("/")[0].partition("-")[0] for name in files} == {"fewshot"}
    assert contents(wheel(sdist[0], tmp_path / "from-sdist")) == files
    runs_the_main_job(installed(tmp_path / "venv", built), tmp_path / "venv", tmp_path)


def test_the_sdist_has_every_file_and_its_tests_run(sdist):
    folder, names = sdist
    made = {"PKG-INFO", "setup.cfg", *(name for name in names if name.startswith("fewshot.egg-info/"))}
    assert names - made == set(sources())
    out = python("-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "test_frozen or test_glyphs", cwd=folder)
    assert " passed" in out and "error" not in out
