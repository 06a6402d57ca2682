"""Record the digests of short trainings of a checkout, or check them: a refactoring must not move a bit.

    git worktree add ../before HEAD
    python scripts/same_bits.py --checkout ../before --json before.json     # before the change
    python scripts/same_bits.py --check before.json                         # after it, on the same machine

Every run goes through the command line, so that two checkouts need to have nothing else in common. Bits are those of
one machine, one torch and one thread; another processor may round differently. It takes a minute or two.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

BACKBONES = ("conv4", "resnet12")
REGS = ("none", "targetdrop", "dropblock", "focuseddropout", "camdrop")
EMBEDS = ("joint", "separate")
SHORT = (
    "--dataset glyphs --epochs 2 --episodes-per-epoch 6 --episodes-per-batch 2 --val-episodes 20 --test-episodes 50"
    " --threads 1 --device cpu --recipe none"
).split()
RUNS = {
    f"{backbone} {reg} {embed}": ["--backbone", backbone, "--reg", reg, "--embed", embed]
    for backbone, reg, embed in itertools.product(BACKBONES, REGS, EMBEDS)
} | {
    "conv4 targetdrop:attention=ste": ["--reg", "targetdrop:attention=ste"],
    "conv512f original r2d2": ["--backbone", "conv512f", "--reg", "original", "--head", "r2d2"],
    "conv4 fp32 steps": ["--precision", "fp32", *"--schedule steps --lr-epochs 1 --lr-values 0.01".split()],
}
TIMINGS = ("images_per_second", "seconds")


def digests(checkout: Path, name: str, flags: list[str], folder: Path) -> dict[str, str]:
    """SHA-256 of the metrics (timings left out), the best weights, and the test episodes' accuracies of one run."""
    out = folder / name.replace(" ", "_").replace(":", "_")
    command = [sys.executable, "-m", "fewshot.train", *SHORT, *flags, "--out", str(out)]
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    subprocess.run(command, cwd=checkout, env=environment, check=True, stdout=subprocess.DEVNULL)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    kept = [{key: value for key, value in line.items() if key not in TIMINGS} for line in lines]
    rows = json.loads((out / "result.json").read_text())["results"]
    return {
        "metrics": _sha256(json.dumps(kept, sort_keys=True).encode()),
        "weights": _sha256((out / "best.safetensors").read_bytes()),
        "episodes": _sha256(b"".join((out / row["episodes_file"]).read_bytes() for row in rows)),
        "tasks": " ".join(row["episodes_digest"][:16] for row in rows),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    here = Path(__file__).resolve().parent.parent
    parser.add_argument("--checkout", type=Path, default=here, help="whose code runs (default: this one's)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the digests there")
    parser.add_argument("--check", type=Path, metavar="FILE", help="compare them with those of an earlier --json")
    parser.add_argument("--only", default="", metavar="TEXT", help="runs whose names contain this")
    args = parser.parse_args()
    if not any(args.only in name for name in RUNS):
        parser.error(f"--only {args.only}: no run is called so; there are {', '.join(RUNS)}")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
    expected = json.loads(args.check.read_text()) if args.check else {}
    found, moved = {}, []
    with tempfile.TemporaryDirectory() as folder:
        for name, flags in RUNS.items():
            if args.only not in name:
                continue
            found[name] = digests(args.checkout.resolve(), name, flags, Path(folder))
            before = expected.get(name, {})
            differ = [part for part, digest in found[name].items() if args.check and digest != before.get(part)]
            moved += [name] if differ else []
            print(f"{name}: {', '.join(differ) + ' MOVED' if differ else found[name]['weights'][:16]}", flush=True)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{len(found)} runs" + (f", {len(moved)} moved" if args.check else ""))
    return 1 if moved else 0


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


if __name__ == "__main__":
    raise SystemExit(main())
