"""Every head on one kept embedding, accuracy beside seconds: results/heads.json, and results/heads.md made of it.

    python scripts/heads.py embed RUN FOLDER         # embeddings of RUN's test and training splits, once
    python scripts/heads.py score FOLDER [HEAD ...]  # 10,000 1- and 5-shot tasks; without HEAD, the whole catalogue
    python scripts/heads.py glyphs RUN...            # what runs on glyphs hold, by head
    python scripts/heads.py report                   # the tables, of what is kept

RUN needs its config.json and best.safetensors; it may be unfinished. A row is kept as soon as it is measured, and
replaces its predecessor. `sklearn:CLASS` and `qpth` (MetaOptNet-SVM's own solver, if it is installed) are timed on
fewer tasks. Seconds of clock and processor are those of solving from embeddings at hand, on `--threads` threads.

A head that needs training learns its parameters here, on the frozen embeddings of the training split: see `learn`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fewshot import heads
from fewshot.core import console
from fewshot.core.compute import choose
from fewshot.core.errors import UserError
from fewshot.core.files import file_digest, write_atomic, write_json
from fewshot.data import Dataset, open_dataset
from fewshot.episodes import EpisodeSampler, Protocol, Tasks, frozen
from fewshot.evaluation.embed import Base, embed_split
from fewshot.evaluation.solve import accuracies, solve_episodes
from fewshot.evaluation.statistics import summarise
from fewshot.heads import Head
from fewshot.model import load_run
from fewshot.runs import Run

RESULTS = Path(__file__).resolve().parent.parent / "results"
KEPT, PAGE = RESULTS / "heads.json", RESULTS / "heads.md"
SHOTS, EPISODES = (1, 5), 10_000
FEWER = 300  # tasks for what solves one at a time
VARIANTS = {
    "anil": ["anil", "anil:order=first", "anil:init=zero"],
    "proto": ["proto:variant=snell"],
    "r2d2": ["r2d2", "r2d2:variant=r2d2"],
    "relation": ["relation", "relation:loss=mse"],
    "simpleshot": [f"simpleshot:norm={norm}" for norm in ("un", "l2n", "cl2n")],
}  # else the default alone: accuracies do not depend on an untrained scale
NEIGHBOURS = ("sklearn:LogisticRegression", "sklearn:LinearSVC")
TASKS, QUERIES, RATE = 8, 6, 1e-3  # of `learn`


def catalogue() -> list[str]:
    """Every head's specs, and scikit-learn's; qpth's if it is installed."""
    ours = [spec for name in heads.FAMILY.names() for spec in VARIANTS.get(name, [name])]
    solvers = ["svm:solver=qpth"] if importlib.util.find_spec("qpth") else []
    return [*ours, *solvers, *NEIGHBOURS]


def embed(run: str, folder: Path, data_root: str) -> None:
    """Write test.npy, train.npy (I, D) and the facts about them (embedding.json)."""
    compute = choose("cpu", "fp32")
    opened = Run.open(run)
    opened.check_code(dataset=True)
    model = load_run(opened, compute)
    dataset = open_dataset(opened.config.dataset, data_root)
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("test", "train"):
        np.save(folder / f"{split}.npy", embed_split(model, dataset[split], compute).numpy())
    validated = [row for row in opened.metrics() if row.get("best")]
    facts = {
        "dataset": dataset.name, "backbone": opened.config.backbone, "trained_with": opened.config.head,
        "shots": opened.config.shots, "step": validated[-1]["step"], "steps": opened.steps,
        "weights": file_digest(opened.best_path), "shape": model.backbone.map_shape,
    }  # fmt: skip
    write_json(folder / "embedding.json", facts)


def learn(spec: str, shots: int, z: torch.Tensor, shape: tuple[int, int, int], dataset: Dataset, steps: int) -> Head:
    """The head after `steps` steps of Adam, each on 8 `shots`-shot tasks of the training split's frozen embeddings."""
    torch.manual_seed(0)
    head = heads.build(spec, z.shape[1], shape).train()
    sampler = EpisodeSampler(dataset["train"], Protocol(5, shots, QUERIES), 0)
    optimizer = torch.optim.Adam(head.parameters(), RATE)
    of_support, of_query = (torch.arange(5).repeat_interleave(n).expand(TASKS, -1) for n in (shots, QUERIES))
    for step in range(steps):
        drawn = torch.from_numpy(sampler.draw(step * TASKS, TASKS))  # (T, W, S + Q)
        support, query = (part.flatten(1) for part in drawn.split([shots, QUERIES], 2))
        optimizer.zero_grad()
        head.loss(head(z[support], of_support, z[query], 5), of_query).backward()
        optimizer.step()
    return head.eval()


def classify(spec: str, z: np.ndarray, tasks: Tasks) -> np.ndarray:
    """`solve_episodes` for a scikit-learn classifier with its defaults, task by task: right queries of each class."""
    import sklearn.linear_model
    import sklearn.svm

    name = spec.partition(":")[2]
    make = {"LogisticRegression": sklearn.linear_model.LogisticRegression, "LinearSVC": sklearn.svm.LinearSVC}[name]
    protocol = tasks.protocol
    counts = []
    for number in range(tasks.episodes):
        support, query = np.split(tasks.sampler.draw(number, 1)[0], [protocol.shots], axis=1)
        classes = np.arange(protocol.ways)
        fitted = make(max_iter=10_000).fit(z[support.ravel()], classes.repeat(protocol.shots))
        right = fitted.predict(z[query.ravel()]) == classes.repeat(protocol.queries)
        counts.append(right.reshape(protocol.ways, -1).sum(1))
    return np.stack(counts)


def score(spec: str, folder: Path, dataset: Dataset, steps: int) -> dict[str, Any]:
    """The row of one head; `steps`: of `learn`."""
    facts = json.loads((folder / "embedding.json").read_text())
    z, base = (torch.from_numpy(np.load(folder / f"{split}.npy")) for split in ("test", "train"))
    neighbour = spec.startswith("sklearn:")
    row: dict[str, Any] = {"setting": "inductive", "threads": torch.get_num_threads()}
    for shots in SHOTS:
        slow = neighbour or "qpth" in spec
        tasks = frozen.standard_tasks(dataset, "test", Protocol(5, shots, 15), FEWER if slow else EPISODES)
        fitted_on = None
        if not neighbour:
            torch.manual_seed(0)
            head = heads.build(spec, z.shape[1], facts["shape"]).eval()
            row["setting"] = head.setting
            if head.needs_training:
                head = learn(spec, shots, base, facts["shape"], dataset, steps)
                row["learned"] = steps
            if head.needs_base:
                fitted_on = Base(base, torch.from_numpy(np.asarray(dataset["train"].labels)))
            solve_episodes(head, z, [Tasks(tasks.sampler, 20)], base=fitted_on)  # warm
        begun = time.perf_counter(), time.process_time()
        if neighbour:
            right = classify(spec, z.numpy(), tasks)
        else:
            (right,) = solve_episodes(head, z, [tasks], base=fitted_on)
        seconds, processor = time.perf_counter() - begun[0], time.process_time() - begun[1]
        found = summarise(accuracies(right, 15))
        row[str(shots)] = {
            "accuracy": found.accuracy, "ci95": found.ci95, "episodes": tasks.episodes,
            "seconds": round(seconds, 2), "processor_seconds": round(processor, 2),
        }  # fmt: skip
        print(f"{spec}, {shots}-shot: {_accuracy(row[str(shots)])}, {seconds:.1f} s ({processor:.1f})", flush=True)
    return row


def glyphs(run: str) -> dict[str, Any]:
    """The rows of one run's test on glyphs, by head, with "trained_with" for its own."""
    opened, found = Run.open(run), {}
    for row in opened.own(any_head=True):
        if row["transform"] != opened.config.transform:
            continue
        entry = found.setdefault(row["head"], {"setting": row["setting"], "trained_with": opened.config.head})
        entry["by"] = f"{opened.config.optimizer}, rate {opened.config.lr:g}, {opened.environment['precision']}"
        entry[str(row["shots"])] = {key: row[key] for key in ("accuracy", "ci95", "episodes")}
    return {head: entry for head, entry in found.items() if {"1", "5"} <= entry.keys()}


def report(kept: dict[str, Any]) -> str:
    """The page."""
    if "embedding" not in kept:
        raise UserError("there is no table yet: make it by python scripts/heads.py score FOLDER")
    facts, machine = kept["embedding"], kept["machine"]
    threads = " or ".join(sorted({str(row["threads"]) for row in kept["rows"].values()}))
    lines = [
        "# Every head on one embedding", "",
        f"{facts['dataset']}, test split, 5-way, 15 queries a class, {EPISODES:,} tasks (the frozen lists) unless"
        " a row says fewer. Accuracy in per cent with 1.96 * std / sqrt(tasks).",
        f"The embedding is that of one {facts['backbone']}, trained with the head {facts['trained_with']} on"
        f" {facts['shots']}-shot tasks, as it was after {facts['step']:,} of {facts['steps']:,} steps (weights"
        f" `{facts['weights'][:16]}`). No other head has trained it.",
        f"Seconds are processor seconds of solving {EPISODES:,} tasks from embeddings at hand, with `--threads"
        f" {threads}`: {machine['processor']}, torch {machine['torch']}, float32. The machine was busy with"
        " other work, so the clock says several times as much: it is in [heads.json](heads.json)."
        " Made by [scripts/heads.py](../scripts/heads.py):", "",
        "```sh", "python scripts/heads.py embed RUN FOLDER",
        f"python scripts/heads.py --threads {machine['threads']} score FOLDER",
        "python scripts/heads.py glyphs RUN...", "python scripts/heads.py report", "```", "",
    ]  # fmt: skip
    for setting, about in SETTINGS.items():
        rows = {spec: row for spec, row in kept["rows"].items() if row["setting"] == setting}
        if rows:
            lines += [f"## {setting.capitalize()}", "", about, "", *_table(rows), ""]
    return "\n".join([*lines, *_notes(kept), *_glyphs_table(kept.get("glyphs", {}))]) + "\n"


SETTINGS = {
    "inductive": "Each query is solved by itself.",
    "transductive": "All queries of a task are solved together: not to be ranked with the others.",
}


def _table(rows: dict[str, Any]) -> list[str]:
    lines = ["| head | 1-shot | seconds | 5-shot | seconds |", "|---|---|---|---|---|"]
    for spec, row in sorted(rows.items(), key=lambda item: -item[1]["5"]["accuracy"]):
        cells = []
        for shots in map(str, SHOTS):
            found = row[shots]
            whole = found["episodes"] == EPISODES
            seconds = found["processor_seconds"] * EPISODES / found["episodes"]
            cells += [_accuracy(found), f"{seconds:.1f}" if whole else f"{seconds:.0f} ({found['episodes']} tasks)"]
        mark = f" (after {row['learned']:,} steps)" if row.get("learned") else ""
        lines.append(f"| `{spec}`{mark} | {' | '.join(cells)} |")
    return lines


def _accuracy(found: dict[str, Any]) -> str:
    return f"{100 * found['accuracy']:.2f} ± {100 * found['ci95']:.2f}"


def _notes(kept: dict[str, Any]) -> list[str]:
    return [
        "- Rows of fewer tasks have seconds extrapolated to all of them, and wider intervals. `sklearn:` is that class"
        " with its defaults but for `max_iter=10000`, one task after the other.",
        "- A head with weights of its own first learned them on the training split's frozen embeddings: as many steps"
        f" of Adam (rate {RATE}) as its row says, on {TASKS} tasks with as many shots as the test and {QUERIES} queries"
        " a class. The network did not change; that is not how such a head is meant: see the glyphs below.",
        "- The weights of that step were not kept. For such a table of a network of your own, give `embed` its run"
        " folder. Test tasks were solved before that training had ended; nothing was chosen by them.",
        "- Heads have their default options but where a row says others, and none was chosen on these tasks. The rate"
        " of `anil` was chosen by validation on glyphs: 64 % with 1, 76 % with 3, and 10 does not train (1-shot, 200"
        " steps).", "",
    ]  # fmt: skip


def _glyphs_table(runs: dict[str, Any]) -> list[str]:
    if not runs:
        return []
    lines = [
        "## On glyphs", "",
        "Conv-4 trained by the recipe `glyphs` (300 steps of 8 5-way 1-shot tasks, seed 0), 10,000 test tasks: with the"
        " head itself, or with another, whose network it then evaluated (`evaluate RUN --head HEAD`).", "",
        "| head | setting | network trained with | by | 1-shot | 5-shot |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    rows = [(spec, row) for found in runs.values() for spec, row in found.items()]
    for spec, row in sorted(rows, key=lambda item: (item[1]["setting"], item[0], item[1]["trained_with"])):
        own = "itself" if row["trained_with"] == spec else f"`{row['trained_with']}`"
        cells = [f"`{spec}`", row["setting"], own, row["by"], _accuracy(row["1"]), _accuracy(row["5"])]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def main(argv: list[str] | None = None) -> None:
    parser = console.Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", default=os.environ.get("FEWSHOT_DATA") or "data")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=1000, help="in which a head that needs training learns")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, arguments in {
        "embed": (("run", None), ("folder", None)), "score": (("folder", None), ("specs", "*")),
        "glyphs": (("runs", "+"),), "report": (),
    }.items():  # fmt: skip
        command = commands.add_parser(name)
        for argument, nargs in arguments:
            command.add_argument(argument, nargs=nargs)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    if args.command == "embed":
        embed(args.run, Path(args.folder), args.data_root)
        return
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {"rows": {}, "glyphs": {}}
    if args.command == "score":
        folder = Path(args.folder)
        if not (folder / "embedding.json").is_file():
            raise UserError(f"{folder} has no embedding: make one by python scripts/heads.py embed RUN {folder}")
        facts = json.loads((folder / "embedding.json").read_text())
        if kept.get("embedding", facts)["weights"] != facts["weights"]:
            kept["rows"] = {}  # they are of another embedding
        kept["embedding"] = facts
        kept["machine"] = {"threads": args.threads, "processor": _processor(), "torch": torch.__version__}
        dataset = open_dataset(kept["embedding"]["dataset"], args.data_root)
        for spec in args.specs or catalogue():
            kept["rows"][spec] = score(spec, folder, dataset, args.steps)
            write_json(KEPT, kept)
    elif args.command == "glyphs":
        for run in args.runs:
            kept["glyphs"][Run.open(run).config.head] = glyphs(run)
        write_json(KEPT, kept)
    write_atomic(PAGE, report(kept).encode())


if __name__ == "__main__":
    raise SystemExit(console.run(main))
