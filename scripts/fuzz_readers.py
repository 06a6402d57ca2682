"""Every reader of files that somebody else may have made, each with good files and the ways to spoil them.

A reader is a function of an empty folder, in which it may write. `Reader.read` may either return the content of the
bytes, or refuse them in one line (UserError, Unreadable).
"""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import pickle
import random
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import torch
from foreign import (
    Damage,
    picture,
    spoil_bytes,
    spoil_json,
    spoil_safetensors,
    spoil_sealed_json,
    spoil_zip,
    tar_of,
    zip_of,
)  # fmt: skip
from run_readers import read_it_all

import fewshot
from fewshot import recipes as recipe_files
from fewshot.core import sealed
from fewshot.core.errors import UserError
from fewshot.data import dataset_json, open_dataset, specs, store
from fewshot.data.importers.images import decode
from fewshot.data.importers.items import files_below
from fewshot.data.importers.limits import Limits
from fewshot.data.importers.lists import Lists, read_ravi, wanted
from fewshot.data.importers.sources import Sources
from fewshot.data.importers.unpickle import load
from fewshot.data.spec import DatasetSpec
from fewshot.episodes import frozen
from fewshot.episodes.sampler import Protocol
from fewshot.evaluation import records, verdicts
from fewshot.learning import checkpoint
from fewshot.reports import pictures
from fewshot.reports.boards import as_csv, gathering
from fewshot.reports.boards.of_tasks import FEWSHOT
from fewshot.reports.comparisons.entries import Finished
from fewshot.runs import Run

LIMITS = Limits(pixels=4_000_000, file=1 << 24, unpacked=1 << 24, steps=200_000)
SPEC = DatasetSpec("mine")


@dataclass(frozen=True)
class Reader:
    good: list[bytes]
    read: Callable[[bytes], Any]
    damages: tuple[Damage, ...] = (spoil_bytes,)


# ---- data


def images(folder: Path) -> Reader:
    modes = {
        "PNG": ("L", "RGB", "RGBA", "P", "1", "I;16"), "JPEG": ("L", "RGB", "CMYK"), "GIF": ("P",), "WEBP": ("RGBA",),
        "BMP": ("RGB", "P"), "TIFF": ("L", "RGBA", "CMYK"), "PPM": ("L", "RGB"),
    }  # fmt: skip
    good = [picture(kind, mode) for kind, each in modes.items() for mode in each]
    return Reader(good, lambda data: decode(data, LIMITS))


def _pickles() -> list[bytes]:
    pixels = np.arange(4 * 3 * 3 * 3, dtype=np.uint8).reshape(4, 3, 3, 3)
    ren = {"image_data": pixels, "class_dict": {"a": [0, 1], "b": (2, np.int64(3))}}
    metaoptnet = {"data": np.asfortranarray(pixels), "labels": [0, 0, 1, 1], "catname2label": {"a": 0, "b": 1}}
    return [pickle.dumps(content, protocol) for content in (ren, metaoptnet) for protocol in range(6)]


def pickles(folder: Path) -> Reader:
    return Reader(_pickles(), lambda data: load(io.BytesIO(data), "it", len(data), LIMITS))


def archives(folder: Path) -> Reader:
    """Zip, tar, gzip, and what is in them, including pickles; every image found is read."""
    members = {f"cat/{number}.png": picture("PNG") for number in range(2)}
    good = [
        zip_of(members), tar_of(members), tar_of(members, "w:gz"), gzip.compress(zip_of(members)),
        zip_of({"a.tar": tar_of(members)}), zip_of({"deep.pkl": _pickles()[4]}),
    ]  # fmt: skip
    lists = Lists({"train": ("cat",)})

    def read(data: bytes) -> None:
        (folder / "it").write_bytes(data)
        with ExitStack() as files:
            for items in Sources([folder], lists, files, SPEC, LIMITS).images("train", "cat").values():
                for item in items:
                    item.read()

    def spoil_packed(rng: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
        return spoil_zip(rng, rng.choice((good[0], good[4], good[5])), others)

    return Reader(good, read, (spoil_bytes, spoil_packed))


def _own_files(folder: Path, name: str, files: dict[str, bytes]) -> Reader:
    """A data set's own files. An input is the name of one, a line's end, its bytes."""
    spec = dataclasses.replace(specs.get(name), images_per_class={"val": 1}, images=None)
    lists = wanted(spec, None, [], LIMITS)
    for file, data in files.items():
        (folder / file).write_bytes(data)

    def spoil(rng: random.Random, good: bytes, others: Sequence[bytes]) -> bytes:
        file = good.partition(b"\n")[0]
        return file + b"\n" + spoil_bytes(rng, files[file.decode()], list(files.values()))

    def read(data: bytes) -> None:
        file, _, content = data.partition(b"\n")
        (folder / file.decode()).write_bytes(content)
        try:
            with ExitStack() as held:
                own = Sources([folder], lists, held, spec, LIMITS).own
                for images in own.values():
                    images.read()
        finally:
            (folder / file.decode()).write_bytes(files[file.decode()])
        if not own:
            raise UserError("no file of the data set")

    return Reader([f"{file}\n".encode() + data for file, data in files.items()], read, (spoil,))


_LABELS = np.arange(20) % 10


def _colours(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def idx_files(folder: Path) -> Reader:
    """Those of Fashion-MNIST."""
    files = {}
    for what, array in (("images-idx3", _colours(20, 5, 4)), ("labels-idx1", _LABELS.astype(np.uint8))):
        data = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes() + array.tobytes()
        files |= {f"{part}-{what}-ubyte": data for part in ("train", "t10k")}
    return _own_files(folder, "fashion-mnist", files)


def matlab_files(folder: Path) -> Reader:
    """Those of SVHN, the training file compressed."""
    files = {}
    for part in ("train", "test"):
        file = io.BytesIO()
        arrays = {"X": _colours(32, 32, 3, 20), "y": _LABELS[:, None] + 1.0}
        scipy.io.savemat(file, arrays, do_compression=part == "train")
        files[f"{part}_32x32.mat"] = file.getvalue()
    return _own_files(folder, "svhn", files)


def cifar_files(folder: Path) -> Reader:
    """Those of CIFAR-10, as Python 2 named their content."""
    images = [b"%d.png" % row for row in range(len(_LABELS))]
    batch = {"data": _colours(len(images), 3072), "labels": _LABELS.tolist(), "filenames": images}
    names = {"label_names": [name.encode() for name in sorted(specs.get("cifar-10").splits["train"])]}
    batches = dict.fromkeys([*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"], batch)
    files = {name: pickle.dumps(content, 2) for name, content in ({"batches.meta": names} | batches).items()}
    return _own_files(folder, "cifar-10", files)


def tables(folder: Path) -> Reader:
    """--splits, and the lists that lie among images."""
    path = folder / "it.csv"
    texts = ("filename,label,split\ncat/0.png,cat,train\ndog/1.png,dog,test\n", "split;class\ntrain;a/é\nval;b\n")

    def read(data: bytes) -> None:
        path.write_bytes(data)
        for item in files_below(str(path), LIMITS):
            try:
                read_ravi(item)
            except UserError:
                pass
        wanted(SPEC, path, [], LIMITS)

    return Reader([text.encode(code) for text in texts for code in ("utf-8", "utf-8-sig", "utf-16")], read)


# ---- the store


def _store(folder: Path) -> Path:
    (folder / "mine").mkdir()
    pixels = np.zeros((3, 16, 16, 3), np.uint8)
    digest = store.write_array(folder / "mine" / "train.npy", pixels.shape, [pixels])
    entry = {"classes": ["a", "b"], "counts": [2, 1], "shape": list(pixels.shape), "sha256": digest}
    dataset_json.write(folder / "mine", "mine", {"train": entry}, "noise", [], {}, ((0.5,) * 3, (0.1,) * 3))
    return folder / "mine"


def stores(folder: Path) -> Reader:
    """dataset.json, with the fingerprint that fits what it says, if it says anything."""
    path = _store(folder) / "dataset.json"

    def read(data: bytes) -> None:
        try:
            content = json.loads(data)
            content["fingerprint"] = dataset_json.fingerprint(content["splits"])
            data = json.dumps(content).encode()
        except Exception:  # not even JSON, or of other types: left as it is
            pass
        path.write_bytes(data)
        store.open_store("mine", folder)

    return Reader([path.read_bytes()], read, (spoil_bytes, spoil_json))


def arrays(folder: Path) -> Reader:
    path = _store(folder) / "train.npy"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        store.open_store("mine", folder)

    return Reader([path.read_bytes()], read)


# ---- run folders: `folder / "run"` is a finished one, `folder / "old"` the same without digests. Anybody can leave
# digests out, as older versions did, or correct them; with them, hardly any damage would reach the readers


def _unseal(folder: Path) -> None:
    """Make a run folder one of format 2."""
    digests = ("sha256", "config_sha256", "weights_sha256", "metrics_sha256", "metrics_bytes")
    for path in folder.glob("*.json"):
        facts = {key: value for key, value in json.loads(path.read_text()).items() if key not in digests}
        for row in facts.get("results", []):
            del row["episodes_sha256"], row["tasks_sha256"]
        path.write_text(json.dumps(facts | ({"format": 2} if path.name == "config.json" else {}), indent=2) + "\n")
    path = folder / "checkpoint.pt"
    torch.save(torch.load(path, weights_only=True) | {"run": Run.open(folder).identity}, path)


def _file(folder: Path, name: str, read: Callable[[Run], Any], *damages: Damage) -> Reader:
    """A file of the run if it is JSON, otherwise of the old one."""
    place = folder / ("run" if name.endswith(".json") else "old")
    run, path = Run.open(place), place / name
    good = [path.read_bytes()]

    def given(data: bytes) -> None:
        path.write_bytes(data)
        read(run)

    return Reader(good, given, (spoil_bytes, *damages))


def config_json(folder: Path) -> Reader:
    def read(run: Run) -> tuple:
        run.check_code(dataset=True)
        return run.config, run.resolved, run.images, run.steps, run.identity

    return _file(folder, "config.json", read, spoil_sealed_json)


def environment_json(folder: Path) -> Reader:
    def read(run: Run) -> None:
        assert isinstance(run.sittings, list)
        gathering.gather(run.folder)

    return _file(folder, "environment.json", read, spoil_sealed_json)


def result_json(folder: Path) -> Reader:
    def read(run: Run) -> None:
        gathering.gather(run.folder)
        Finished.load(str(run.folder))

    return _file(folder, "result.json", read, spoil_sealed_json)


def metrics_jsonl(folder: Path) -> Reader:
    return _file(folder, "metrics.jsonl", pictures.read_curves, spoil_json)


def episodes_npy(folder: Path) -> Reader:
    row = Run.open(folder / "old").rows[0]
    return _file(folder, row["episodes_file"], lambda run: records.read_accuracies(run.folder, row))


def tasks_npz(folder: Path) -> Reader:
    row = Run.open(folder / "old").rows[0]
    return _file(folder, row["tasks_file"], lambda run: records.read(run, row), spoil_zip)


def images_npz(folder: Path) -> Reader:
    """Of a classifier: the record of 60 images."""
    truth = np.arange(60) % 10
    found = verdicts.Verdicts(truth, np.where(truth > 2, truth, 0), np.ones(60, bool))
    row = {"classes": 10} | found.figures(10) | verdicts.keep(Run.open(folder / "old"), "letters-test", found)
    del row["images_sha256"]
    return _file(folder, row["images_file"], lambda run: verdicts.read(run.folder, row), spoil_zip)


def checkpoint_pt(folder: Path) -> Reader:
    """That of a network with a few weights: the rest of the file is the same."""
    path, network = folder / "checkpoint.pt", torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    network(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    checkpoint.save(
        path, {"model": network.state_dict(), "optimizer": optimizer.state_dict()}, checkpoint.Progress(step=1), "mine"
    )
    good = [path.read_bytes()]

    def restore(state: dict[str, Any]) -> None:
        network.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])

    def read(data: bytes) -> None:
        path.write_bytes(data)
        checkpoint.load(path, restore, "mine", sealed_only=False)

    return Reader(good, read, (spoil_bytes, spoil_zip, _then_sealed(spoil_bytes), _then_sealed(spoil_zip)))


def _then_sealed(damage: Damage) -> Damage:
    """The same damage to what is before the seal, sealed again."""

    def spoil(rng: random.Random, good: bytes, others: Sequence[bytes]) -> bytes:
        data = damage(rng, good[: -len(sealed.seal_line(b""))], others)
        return data + sealed.seal_line(data)

    return spoil


def best_safetensors(folder: Path) -> Reader:
    return _file(folder, "best.safetensors", lambda run: fewshot.load(run.folder, device="cpu"), spoil_safetensors)


def run_folders(folder: Path) -> Reader:
    """Any file of a run folder, and everything that reads one. An input is the file's name, a line's end, its bytes."""
    shutil.rmtree(folder / "run")  # or a leaderboard would read both
    run = folder / "old"
    files = {path.name: path.read_bytes() for path in sorted(run.iterdir()) if path.is_file()}
    structured = {
        ".json": spoil_json, ".jsonl": spoil_json, ".npz": spoil_zip, ".pt": spoil_zip,
        ".safetensors": spoil_safetensors,
    }  # fmt: skip

    def spoil(rng: random.Random, good: bytes, others: Sequence[bytes]) -> bytes:
        name = good.partition(b"\n")[0].decode()
        damage = rng.choice((spoil_bytes, structured.get(Path(name).suffix, spoil_bytes)))
        return f"{name}\n".encode() + damage(rng, files[name], list(files.values()))

    def read(data: bytes) -> None:
        name, _, content = data.partition(b"\n")
        path = run / name.decode()
        path.write_bytes(content)
        try:
            if refused := read_it_all(run):
                raise UserError(refused[0])
        finally:
            path.write_bytes(files[path.name])

    return Reader([f"{name}\n".encode() + data for name, data in files.items()], read, (spoil,))


# ---- other files


def board(folder: Path) -> Reader:
    """A leaderboard's CSV, to which --append adds."""
    path = folder / "board.csv"
    committed = Path(__file__).parent.parent / "results" / "leaderboard.csv"
    good = b"\n".join(committed.read_bytes().split(b"\n")[:3]) + b"\n"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        as_csv.read(FEWSHOT, path)

    return Reader([good], read)


def task_lists(folder: Path) -> Reader:
    """A frozen list, and its tasks on the data set that it is for."""
    path, glyphs = folder / "list.json", open_dataset("glyphs")
    made = frozen.freeze(glyphs, "test", Protocol(5, 1, 15), episodes=4)
    good = json.dumps(dataclasses.asdict(made)).encode()

    def read(data: bytes) -> None:
        path.write_bytes(data)
        frozen.read(str(path)).tasks(glyphs)

    return Reader([good], read, (spoil_bytes, spoil_json))


def recipes(folder: Path) -> Reader:
    good = [path.read_bytes() for path in sorted(recipe_files.FOLDER.rglob("*.toml"))]
    recipe_files.FOLDER = folder

    def read(data: bytes) -> None:
        (folder / "it.toml").write_bytes(data)
        recipe_files.resolve("glyphs", {"recipe": "it"})

    return Reader(good, read)


OF_A_RUN = (
    config_json, environment_json, result_json, metrics_jsonl, episodes_npy, tasks_npz, images_npz, best_safetensors,
    run_folders,
)  # fmt: skip
READERS: dict[str, Callable[[Path], Reader]] = {
    reader.__name__: reader
    for reader in (
        images, pickles, archives, idx_files, matlab_files, cifar_files, tables, stores, arrays, *OF_A_RUN,
        checkpoint_pt, board, task_lists, recipes,
    )
}  # fmt: skip


def reader(name: str, folder: Path, run: Path) -> Reader:
    """The reader of that name; `run`: a finished run, copied for a reader that needs one."""
    if READERS[name] in OF_A_RUN:
        shutil.copytree(run, folder / "run")
        _unseal(shutil.copytree(run, folder / "old"))
    return READERS[name](folder)
