"""On a GPU: the same tasks, images and logits as on the CPU, no waiting within a step, exact repeats if asked for."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys

import pytest
import torch
from commands import SMALL, command

import fewshot
from fewshot import evaluate, regularizers, train
from fewshot.backbones import Backbone
from fewshot.core import console
from fewshot.core.compute import choose, full_fp32
from fewshot.data import images, open_dataset
from fewshot.data.augment import Augmentation, to_unit
from fewshot.data.images import ImageSource
from fewshot.evaluation.embed import embed_split
from fewshot.learning import loop
from fewshot.runs import Run
from fewshot.testing.regularizers import Case, apply

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

CUDA = [*SMALL, "--device", "cuda", "--precision", "auto"]  # if a flag is given twice, the second counts
PASSES = 100
ROUNDING = 0.005  # in the fraction dropped: in bf16, more values are equal on one device than on the other
AT_SITE = "targetdrop+dropout@1+dropblock@2+camdrop@2"


def run(*args) -> int:
    return console.run(train.main, [str(arg) for arg in args])


def weights(folder) -> str:
    return hashlib.sha256((folder / "best.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize("resident", [True, False], ids=["resident", "mapped"])
def test_augmented_images_equal_the_cpus(resident, monkeypatch):
    monkeypatch.setattr(images, "_SHARE_OF_FREE_MEMORY", 0.5 if resident else 0.0)
    split, augment = open_dataset("glyphs")["train"], Augmentation(padding=3, jitter=0.4)
    index = torch.randint(0, len(split.images), (64,)).numpy()
    batches = {}
    for device in (torch.device("cpu"), choose("cuda").device):
        source = ImageSource(split, device)
        drawn = augment.draw(64, torch.Generator().manual_seed(1)).to(device)
        batches[device.type] = augment(*source.fetch(index), drawn).cpu()
        assert source.resident == (device.type == "cpu" or resident)
    assert torch.allclose(batches["cpu"], batches["cuda"], atol=1e-5)


@pytest.mark.parametrize("precision, tolerance", [("fp32", 1e-4), ("bf16", 0.05)])
@pytest.mark.parametrize("head", ["proto", "r2d2", "cosine", "matching", "logreg", "lrd2", "svm"])
def test_logits_equal_the_cpus(small_run, precision, tolerance, head):
    """Differences are relative to the largest logit; both devices solve in float32."""
    split = open_dataset("glyphs")["test"]
    logits = {}
    for compute in (choose("cpu", "fp32"), choose("cuda", precision)):
        model = fewshot.load(small_run, device=str(compute.device))
        z = embed_split(model, split, compute)
        assert z.device == compute.device and z.dtype == torch.float32
        solver = fewshot.heads.build(head).to(compute.device)
        support, query = z[: 5 * 24].view(5, 24, -1).split([4, 20], dim=1)
        labels = torch.arange(5, device=z.device).repeat_interleave(4)[None]
        with compute.autocast():
            solved = solver(support.flatten(0, 1)[None], labels, query.flatten(0, 1)[None], ways=5)
        assert solved.dtype == torch.float32
        logits[compute.device.type] = solved.detach().cpu()
    difference = (logits["cpu"] - logits["cuda"]).abs().max() / logits["cpu"].abs().max()
    assert difference < tolerance


@pytest.mark.parametrize(
    "flags",
    [
        ("--reg", AT_SITE), ("--backbone", "resnet12", "--reg", AT_SITE),
        ("--reg", "focuseddropout+attentiondrop@1+spatialdropout@1+dropblock@2:variant=metaopt+cutout"),
        ("--backbone", "resnet12", "--reg", "droppath+stochasticdepth", "--ema", "0.9"),
        ("--regime", "supervised:batch=16,mixup=0.2", "--reg", AT_SITE),
    ],
    ids=["conv4", "resnet12", "other methods", "branches", "supervised"],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")  # torch warns that it is a prototype
def test_nothing_in_a_step_waits_for_the_device(flags, tmp_path, monkeypatch):
    begin_step, dropped = Backbone.begin_step, loop._dropped
    steps = []

    def begin(self, *args):
        torch.cuda.set_sync_debug_mode("error" if steps else "default")  # the first step may set things up
        begin_step(self, *args)

    def end(model, like):
        fractions = dropped(model, like)
        torch.cuda.set_sync_debug_mode("default")
        steps.append(fractions)
        return fractions

    monkeypatch.setattr(Backbone, "begin_step", begin)
    monkeypatch.setattr(loop, "_dropped", end)
    try:
        assert run(*CUDA, *flags, "--out", tmp_path / "run") == 0
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(steps) >= 6


@pytest.mark.filterwarnings("ignore:.*[Dd]eterministic")  # an earlier test has started cuBLAS without its workspace
def test_deterministic_runs_repeat_and_resume_to_the_bit(tmp_path, monkeypatch):
    def on_a_processor_only():
        raise AssertionError

    monkeypatch.setattr(loop, "tidy_heap", on_a_processor_only)
    flags = [*CUDA, "--deterministic", "--reg", AT_SITE, "--episodes-per-epoch", 40, "--checkpoint-seconds", 0.001]
    assert run(*flags, "--out", tmp_path / "a") == 0
    assert run(*flags, "--out", tmp_path / "b") == 0
    assert weights(tmp_path / "a") == weights(tmp_path / "b")

    class Cut(Exception):
        pass

    def cut(*args, **kwargs):
        raise Cut

    with monkeypatch.context() as patch:  # at step 20, ten after the checkpoint
        patch.setattr(loop._Log, "validation", cut)
        with pytest.raises(Cut):
            run(*flags, "--out", tmp_path / "c")
    assert run("--out", tmp_path / "c", "--resume") == 0
    assert weights(tmp_path / "c") == weights(tmp_path / "a")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("spec", regularizers.FAMILY.names())
def test_every_regularizer_acts_on_the_device(spec, dtype):
    """Its output is finite, has x's dtype and memory format, and drops on average what it drops on the CPU.

    For the same seed, the two devices draw different numbers, and some methods draw a single number in a pass: hence
    many passes, and a tolerance of five standard errors of what they show.
    """
    means, variances = [], []
    for device in ("cpu", "cuda"):
        case = Case(spec)
        method = case.build(10).to(device)
        x = torch.rand(32, *case.shape(10), generator=torch.Generator().manual_seed(0)).to(device, dtype)
        x = x.contiguous(memory_format=torch.channels_last)
        found = []
        for seed in range(PASSES):
            y = apply(method, x, seed)
            found.append(method.dropped.double())
        assert y.device == x.device and y.dtype == dtype and y.isfinite().all()
        assert y.is_contiguous(memory_format=torch.channels_last)
        dropped = torch.stack(found).cpu()
        means.append(float(dropped.mean()))
        variances.append(float(dropped.var()) / PASSES)
    assert means[0] == pytest.approx(means[1], abs=ROUNDING + 5 * sum(variances) ** 0.5)


@pytest.mark.parametrize("head", sorted(set(fewshot.heads.FAMILY.names()) - {"relation", "anil"}))
def test_every_head_solves_on_the_device_as_on_the_cpu(head):
    features = torch.randn(400, 64, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(400) % 20
    right = []
    for compute in (choose("cpu", "fp32"), choose("cuda", "fp32")):
        solver = fewshot.heads.build(head, features=64).to(compute.device)
        support, query = (features[start : start + 50].to(compute.device)[None] for start in (0, 100))
        if solver.needs_base:
            solver.fit_base(features[200:].to(compute.device), labels[200:].to(compute.device))
        solved = solver.eval()(support, (torch.arange(50, device=compute.device) % 5)[None], query, ways=5)
        right.append(solved.detach().argmax(2).cpu())
    assert (right[0] == right[1]).float().mean() > 0.97


def test_evaluate_gives_the_same_rows_again(small_run, tmp_path):
    folder = shutil.copytree(small_run, tmp_path / "run")
    flags = [str(folder), "--device", "cuda", "--shots", "1", "--episodes", "50", "--queries", "10"]
    rows = []
    for _ in range(2):
        assert console.run(evaluate.main, flags) == 0
        rows.append(Run.open(folder).rows[-1])
    assert rows[0] == rows[1] and rows[0]["evaluated_by"]["device"] == torch.cuda.get_device_name()


def test_bf16_learns_and_the_record_says_so(tmp_path):
    assert run(*CUDA, "--epochs", 4, "--episodes-per-epoch", 200, "--out", tmp_path / "run") == 0
    folder = Run.open(tmp_path / "run")
    native = "bf16" if torch.cuda.get_device_capability() >= (8, 0) else "fp32"
    assert folder.environment["precision"] == native
    assert folder.result["results"][0]["evaluated_by"]["precision"] == native
    assert folder.environment["device"] == torch.cuda.get_device_name()
    assert folder.result["results"][0]["accuracy"] > 0.6


@pytest.mark.parametrize("size", [1, 2])
def test_processes_with_a_device_each(size, tmp_path):
    """With sync-bn, the shares act as one batch: except for rounding, training is that of one process.

    With one process, which torchrun may start, too, sync-bn is refused.
    """
    if torch.cuda.device_count() < size:
        pytest.skip(f"needs {size} CUDA devices")
    flags = [*SMALL[:-4], "--precision", "fp32", *["--sync-bn"] * (size > 1), "--out", str(tmp_path / "run")]
    arguments = ["-m", "torch.distributed.run", "--nproc-per-node", str(size), "-m", "fewshot.train", *flags]
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    folder = Run.open(tmp_path / "run")
    assert folder.processes == str(size) and folder.environment["device"] == torch.cuda.get_device_name()
    assert run(*SMALL[:-4], "--precision", "fp32", "--out", tmp_path / "alone") == 0
    alone = Run.open(tmp_path / "alone")
    losses = [[row["loss"] for row in each.metrics() if "loss" in row] for each in (folder, alone)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_more_processes_than_devices_is_one_line(tmp_path):
    size = torch.cuda.device_count() + 1
    flags = [*SMALL, "--episodes-per-batch", str(size), "--device", "cuda", "--out", str(tmp_path / "run")]
    done = command("train", *flags, "--processes", str(size))
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert f"process {size} of this machine finds no CUDA device of its own" in done.stderr


def test_an_embedded_batch_stays_where_the_model_is(small_run):
    model = fewshot.load(small_run, device="cuda")
    batch = images.as_tensor(open_dataset("glyphs")["test"].images[:10])
    embedded = model.embed(batch)
    assert embedded.is_cuda
    with full_fp32(), torch.no_grad():
        assert torch.allclose(embedded, model(to_unit(batch.cuda())), atol=1e-5)
