"""Feed damaged files to every reader of foreign data: nothing may be executed, crash, hang or take much memory.

    python scripts/fuzz.py --inputs 100000        # writes results/fuzz.md

Good files of every kind are changed at random (bytes replaced, cut, doubled, moved from one to another) and read. What
a reader may do with one is to give its content, or to refuse it (UserError, Unreadable). Each reader runs in a process
of its own, with a bound on memory and an alarm on time; whatever starts a program, opens a connection or loads a
library is counted as an execution. The same `--seed` gives the same inputs.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import multiprocessing
import os
import pickle
import platform
import random
import resource
import signal
import sys
import tarfile
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fewshot.core.errors import UserError
from fewshot.data import store
from fewshot.data.importers.images import Unreadable, decode, quiet_pillow
from fewshot.data.importers.limits import Limits
from fewshot.data.importers.lists import Lists, wanted
from fewshot.data.importers.sources import Sources
from fewshot.data.importers.unpickle import load
from fewshot.data.spec import DatasetSpec

SECONDS, MEMORY = 10, 2 << 30  # an input that takes longer hangs; bytes of memory beyond those after start
LIMITS = Limits(pixels=4_000_000, file=1 << 24, unpacked=1 << 24, steps=200_000)
SPEC = DatasetSpec("mine")
REPORT = Path(__file__).resolve().parent.parent / "results" / "fuzz.md"


@dataclass
class Tally:
    """What became of one reader's inputs."""

    read: int = 0
    refused: int = 0
    crashed: int = 0
    hung: int = 0
    executed: int = 0
    slowest: float = 0.0
    """Seconds of one input."""
    memory: int = 0
    """Kilobytes that the process had more at its largest than at its start."""
    worst: list[str] = field(default_factory=list)

    @property
    def inputs(self) -> int:
        return self.read + self.refused + self.crashed + self.hung


class Hang(BaseException):
    """An input took too long."""


# ---- good files


def _picture(kind: str, mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(len(kind)).integers(0, 256, (24, 17, 4), np.uint8)
    Image.fromarray(noise).convert(mode).save(file, kind)
    return file.getvalue()


def _tar(members: dict[str, bytes], mode: str = "w") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def _zip(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def _pictures() -> list[bytes]:
    modes = {
        "PNG": ("L", "RGB", "RGBA", "P", "1", "I;16"), "JPEG": ("L", "RGB", "CMYK"), "GIF": ("P",), "WEBP": ("RGBA",),
        "BMP": ("RGB", "P"), "TIFF": ("L", "RGBA", "CMYK"), "PPM": ("L", "RGB"),
    }  # fmt: skip
    return [_picture(kind, mode) for kind, each in modes.items() for mode in each]


def _pickles() -> list[bytes]:
    pixels = np.arange(4 * 3 * 3 * 3, dtype=np.uint8).reshape(4, 3, 3, 3)
    ren = {"image_data": pixels, "class_dict": {"a": [0, 1], "b": (2, np.int64(3))}}
    metaoptnet = {"data": np.asfortranarray(pixels), "labels": [0, 0, 1, 1], "catname2label": {"a": 0, "b": 1}}
    return [pickle.dumps(content, protocol) for content in (ren, metaoptnet) for protocol in range(6)]


def _archives() -> list[bytes]:
    members = {f"cat/{number}.png": _picture("PNG") for number in range(2)}
    return [
        _zip(members), _tar(members), _tar(members, "w:gz"), gzip.compress(_zip(members)),
        _zip({"a.tar": _tar(members)}), _zip({"deep.pkl": _pickles()[4]}),
    ]  # fmt: skip


def _tables() -> list[bytes]:
    texts = ("filename,label,split\ncat/0.png,cat,train\ndog/1.png,dog,test\n", "split;class\ntrain;a/é\nval;b\n")
    return [text.encode(code) for text in texts for code in ("utf-8", "utf-8-sig", "utf-16")]


def _record(folder: Path) -> list[bytes]:
    images = np.zeros((3, 16, 16, 3), np.uint8)
    digest = store.write_array(folder / "train.npy", images.shape, [images])
    entry = {"classes": ["a", "b"], "counts": [2, 1], "shape": list(images.shape), "sha256": digest}
    store.write_record(folder, "mine", {"train": entry}, "noise", [], {}, ((0.5, 0.5, 0.5), (0.1, 0.1, 0.1)))
    return [(folder / "dataset.json").read_bytes()]


# ---- readers: folder -> (good files, what reads one)

Reader = tuple[list[bytes], Callable[[bytes], Any]]


def images(folder: Path) -> Reader:
    return _pictures(), lambda data: decode(data, LIMITS)


def pickles(folder: Path) -> Reader:
    return _pickles(), lambda data: load(io.BytesIO(data), "it", len(data), LIMITS)


def archives(folder: Path) -> Reader:
    """Zip, tar, gzip, and what is in them, among it pickles; every image found is read."""
    lists = Lists({"train": ("cat",)})

    def read(data: bytes) -> None:
        (folder / "it").write_bytes(data)
        with ExitStack() as files:
            for items in Sources([folder], lists, files, SPEC, LIMITS).images("train", "cat").values():
                for item in items:
                    item.read()

    return _archives(), read


def tables(folder: Path) -> Reader:
    path = folder / "it.csv"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        wanted(SPEC, path, [], LIMITS)

    return _tables(), read


def records(folder: Path) -> Reader:
    """dataset.json, with the fingerprint that belongs to what it says, where it says anything."""
    (folder / "mine").mkdir()
    seeds = _record(folder / "mine")

    def read(data: bytes) -> None:
        try:
            content = json.loads(data)
            content["fingerprint"] = store.fingerprint(content["name"], content["splits"])
            data = json.dumps(content).encode()
        except Exception:  # not even JSON, or of other types: as it is, then
            pass
        (folder / "mine" / "dataset.json").write_bytes(data)
        store.open_store("mine", folder)

    return seeds, read


def arrays(folder: Path) -> Reader:
    (folder / "mine").mkdir()
    _record(folder / "mine")
    path = folder / "mine" / "train.npy"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        store.open_store("mine", folder)

    return [path.read_bytes()], read


READERS: dict[str, Callable[[Path], Reader]] = {
    reader.__name__: reader for reader in (images, pickles, archives, tables, records, arrays)
}


# ---- the loop

_TOKENS = (
    b"\0", b"\xff" * 4, b"\xff\xff\xff\x7f", b"(", b"2\x86", b"../", b"-1", b"null", b"[[", b"1e999", b"\n", b'"', b",",
)  # fmt: skip


def changed(random_: random.Random, seeds: list[bytes]) -> bytes:
    """One of the seeds, damaged in one to eight ways."""
    data = bytearray(random_.choice(seeds))
    for _ in range(1 << random_.randrange(4)):
        place = random_.randrange(len(data) + 1)
        # Headers and directories stand at the ends of a file: half of the damage is done there.
        if len(data) > 128 and random_.random() < 0.5:
            place = random_.choice((random_.randrange(64), len(data) - random_.randrange(64)))
        match random_.randrange(6):
            case 0:
                data[place : place + 1] = bytes([random_.randrange(256)])
            case 1:
                data[place : place + 1] = random_.choice(_TOKENS)
            case 2:
                del data[place : place + random_.choice((1, 4, 64, 1 << 20))]
            case 3:
                data[place:place] = data[place : place + random_.choice((1, 8, 256))]
            case 4:
                other = random_.choice(seeds)
                start = random_.randrange(len(other))
                data[place:place] = other[start : start + random_.choice((2, 16, 128))]
            case _:
                if place < len(data):
                    data[place] ^= 1 << random_.randrange(8)
    return bytes(data)


_HARMFUL = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect", "ctypes.dlopen")


def fuzz(name: str, inputs: int, seed: int, until: float) -> Tally:
    """Give one reader so many inputs, or as many as it can take until that time."""
    tally = Tally()
    armed = False

    def watch(event: str, arguments: tuple) -> None:
        if armed and event in _HARMFUL:
            tally.executed += 1
            tally.worst.append(f"executed: {event} {str(arguments)[:80]}")

    def hang(*_: object) -> None:
        raise Hang

    signal.signal(signal.SIGALRM, hang)
    sys.addaudithook(watch)
    generator = random.Random(f"{name} {seed}")
    with tempfile.TemporaryDirectory() as folder, quiet_pillow():
        seeds, read = READERS[name](Path(folder))
        for each in seeds:
            read(each)  # good files are read; and what is imported at first use, is
        start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        resource.setrlimit(resource.RLIMIT_AS, (_address_space() + MEMORY,) * 2)
        for _ in range(inputs):
            if time.time() > until:
                break
            data = changed(generator, seeds)
            begun = time.perf_counter()
            armed = True
            signal.alarm(SECONDS)
            try:
                read(data)
                tally.read += 1
            except (UserError, Unreadable):
                tally.refused += 1
            except Hang:
                tally.hung += 1
                tally.worst.append(f"hung: {data[:200].hex()}")
            except BaseException:
                tally.crashed += 1
                tally.worst.append(f"crashed: {traceback.format_exc(limit=-2)} on {data[:4000].hex()}")
            finally:
                signal.alarm(0)
                armed = False
            tally.slowest = max(tally.slowest, time.perf_counter() - begun)
        tally.memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start
    return tally


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def report(tallies: dict[str, Tally | None], seed: int, seconds: float) -> str:
    """results/fuzz.md"""
    rows = []
    for name, tally in tallies.items():
        if tally is None:
            rows.append(f"| {name} | the process died | | | | | | | |")
            continue
        rows.append(
            f"| {name} | {tally.inputs:,} | {tally.read:,} | {tally.refused:,} | {tally.executed} | {tally.crashed} |"
            f" {tally.hung} | {tally.slowest:.2f} s | {tally.memory / 1024:.0f} MB |"
        )
    total = sum(tally.inputs for tally in tallies.values() if tally)
    lines = [
        "# Damaged files, read",
        "",
        f"{total:,} inputs by `scripts/fuzz.py --seed {seed}`, in {seconds / 60:.1f} minutes. *Read*: nothing that",
        "matters was damaged; *refused*: in one line; *executed*: something started a program; *crashed*: any other",
        f"exception; *hung*: more than {SECONDS} s; *memory*: what the process had more at its largest than at its",
        f"start. Python {platform.python_version()}, Pillow {Image.__version__}, NumPy {np.__version__}.",
        "",
        "| reader | inputs | read | refused | executed | crashed | hung | slowest input | memory |",
        "|---|---|---|---|---|---|---|---|---|",
        *rows,
        "",
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000, help="of all readers together")
    parser.add_argument("--minutes", type=float, default=60.0, help="no more than so many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", type=Path, default=REPORT)
    parser.add_argument("--only", choices=READERS, help="one reader")
    args = parser.parse_args()
    names = [args.only] if args.only else list(READERS)
    begun = time.time()
    tallies: dict[str, Tally | None] = {}
    context = multiprocessing.get_context("spawn")
    for position, name in enumerate(names):
        share = (begun + 60 * args.minutes - time.time()) / (len(names) - position)
        with context.Pool(1) as pool:
            task = pool.apply_async(fuzz, (name, args.inputs // len(names), args.seed, time.time() + share))
            try:
                tallies[name] = task.get(share + 60)
            except multiprocessing.TimeoutError:  # killed by a signal, such as SIGSEGV: the pool never answers
                tallies[name] = None
        print(name, tallies[name], flush=True)
    args.report.write_text(report(tallies, args.seed, time.time() - begun))
    return 0 if all(t and not (t.crashed or t.hung or t.executed) for t in tallies.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
