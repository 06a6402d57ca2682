"""The run folder: everything a run leaves behind, and the only way it is read and written.

    config.json          the complete configuration             environment.json  versions, device, commit
    metrics.jsonl        one object per step or validation      checkpoint.pt     to resume exactly
    best.safetensors     weights of the best validation         result.json       the accuracies
    episodes-*.npy       accuracy of every episode, one file per result (evaluation/records.py)
    tasks-*.npz          the episodes' classes, and the tasks that share no image (evaluation/records.py)
    images-*.npz         what a classifier made of every image (evaluation/verdicts.py)
    code/                copies of the user's own modules that trained the run, if any
    tensorboard/ wandb/ profile/    what loggers and the profiler leave (reports/); no run is read from them

**What belongs together.** config.json is written once, and its SHA-256 is the run's identity (`Run.identity`).
environment.json, result.json and checkpoint.pt name it, and carry their own digest (core/sealed.py). environment.json
also names the digests of best.safetensors and of metrics.jsonl, result.json those of best.safetensors and, in its rows,
of the records. Every file is checked, when it is read, against what names it, so damage and files of another run are
noticed.

config.json carries its `format`. Runs of format 1 and 2 have no digests. Besides the fields, config.json holds
`resolved`, what was settled when the run began: the fingerprint of the images, their size and normalisation,
parameters, the digests of the code that trains (core/sources.py), and an `id` drawn at random.
"""

from __future__ import annotations

from fewshot.runs.facts import FOREIGN, FORMAT
from fewshot.runs.folder import Run
from fewshot.runs.metrics import Log
from fewshot.runs.provenance import environment
from fewshot.runs.rows import CLASSIFICATION, FEWSHOT

__all__ = ["CLASSIFICATION", "FEWSHOT", "FOREIGN", "FORMAT", "Log", "Run", "environment"]
