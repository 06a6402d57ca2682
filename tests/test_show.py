"""python -m fewshot.show: what the pictures show, that they repeat, wrong input."""

from __future__ import annotations

import io
import json
import re
import shutil

import boards
import numpy as np
import pytest
import torch
from commands import NETWORK, command, one_line_error
from PIL import Image
from torch import Tensor

import fewshot
from fewshot import model as models
from fewshot import show
from fewshot.core import console
from fewshot.data import open_dataset
from fewshot.data.augment import to_unit
from fewshot.evaluation import inspection
from fewshot.evaluation.inspection import activations
from fewshot.regularizers import Regularizer
from fewshot.reports import curves, pictures

FRESH = ["--dataset", "glyphs", "--images", "2", "--threads", "1"]


class LeftHalf(Regularizer):
    """Drops the left half of every map; in the first channel, weakens the rest of the lowest row to a quarter."""

    def multiplier(self, x: Tensor, guide=None) -> Tensor:
        mask = torch.full_like(x, 2.0)
        mask[:, 0, -1] = 0.5
        mask[..., : x.shape[3] // 2] = 0
        return mask


class Maskless(Regularizer):
    def forward(self, x: Tensor, guide=None) -> Tensor:
        return -x if self.training else x


def run(*args) -> int:
    return console.run(show.main, [str(arg) for arg in args])


def texts(path) -> list[str]:
    """Every line of text in an SVG picture, in the order drawn."""
    return re.findall(r"<!-- (.*?) -->", path.read_text())


@pytest.fixture(scope="module")
def glyphs():
    return open_dataset("glyphs", "data")


@pytest.fixture
def run_copy(small_run, tmp_path):
    return shutil.copytree(small_run, tmp_path / "run")


def test_masks_of_every_kind_stand_side_by_side_and_say_what_they_drop(tmp_path, capsys):
    regs = ["dropblock@2,3", "focuseddropout+camdrop:channels=1", "attentiondrop:mode=am", "cutout", "droppath"]
    flags = [flag for reg in regs for flag in ("--reg", reg)]
    out = tmp_path / "new" / "masks.svg"
    assert run("masks", *FRESH, "--backbone", "resnet12", *flags, "--out", out) == 0
    heading = "glyphs: what is taken away after block 3 of 4 (320 maps of 4x4) in resnet12, untrained"
    assert capsys.readouterr().out == f"{out}: {heading}\n"
    drawn = texts(out)
    assert heading in " ".join(drawn)
    for text in ("image", "dropblock", "focuseddropout", "camdrop:", "channels=1", "attentiondrop:", "mode=am",
                 "cutout", "from the image", "droppath", "in the branch", "of block 3"):  # fmt: skip
        assert text in drawn, text
    dropped = [float(text.split("%")[0]) for text in drawn if text.endswith("% dropped")]
    assert len(dropped) == 6 and min(dropped) > 0, "FocusedDropout, too, takes part in the step that is shown"
    assert out.read_text().count("<image") == 2 * 7 + 6, "two images, six masks of each, and a colour bar a column"


def test_what_is_taken_away_is_read_off_the_mask_whatever_its_scale():
    mask = torch.tensor([[[[0.0, 2.0], [0.5, 2.0]], [[0.0, 0.0], [0.0, 0.0]], [[3.0, 3.0], [3.0, 3.0]]]])
    expected = np.array([[[1, 0], [0.75, 0]], [[1, 1], [1, 1]], [[0, 0], [0, 0]]])
    taken = inspection.taken_away(mask)
    np.testing.assert_array_equal(taken[0], expected)
    np.testing.assert_allclose(inspection.one_view(taken, None)[0], expected.mean(0), atol=1e-7)
    np.testing.assert_array_equal(inspection.one_view(taken, 0)[0], expected[0])
    np.testing.assert_array_equal(inspection.one_view(taken, "most")[0], expected[1])


def test_a_column_is_its_regularizers_mask_at_the_run_s_site(small_run, glyphs):
    model = fewshot.load(small_run, device="cpu")
    specs = inspection.expand("targetdrop:reduction=8+test_show.LeftHalf+dropout", model.backbone.original, site=2)
    inspection.replace_regularizers(model, NETWORK, specs)
    scene = inspection.scene(glyphs, 3, seed=1)
    target, left, noise = inspection.masks(model, inspection.choose(model, specs, 2), scene, seed=0)
    assert left.site.depth == target.site.depth == 2 and left.taken.shape == (3, 16, 8, 8)
    assert (left.taken[..., :4] == 1).all() and left.dropped == 0.5
    assert (left.taken[:, 0, -1, 4:] == 0.75).all() and (left.taken[:, 1:, :, 4:] == 0).all()
    assert target.dropped == pytest.approx((target.taken == 1).float().mean().item())
    assert ((target.taken == 1).flatten(2).any(2).sum(1) == 2).all(), "floor(0.15 * 16) channels of each image"
    (alone,) = inspection.masks(model, inspection.choose(model, specs, 2)[2:], scene, seed=0)
    assert torch.equal(alone.taken, noise.taken), "what is drawn beside it changes nothing"


def test_a_runs_own_regularizer_is_shown_with_the_weights_that_it_trained_with(small_run, glyphs):
    model = fewshot.load(small_run, device="cpu")
    scene = inspection.scene(glyphs, 2, seed=0)
    (reg,) = inspection.choose(model, inspection.expand("targetdrop", "none"), site=None)
    assert reg is model.backbone.regs["3"][0]
    (shown,) = inspection.masks(model, [reg], scene, seed=0)
    x = model.normalise(to_unit(torch.from_numpy(scene.shown)))
    with torch.no_grad():
        for block in model.backbone.blocks[:3]:
            x = block(x)
    assert torch.equal(shown.taken == 1, reg.mask(x) == 0)


def test_the_colours_lie_on_the_image_where_the_values_are():
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    image = np.full((4, 4, 3), 255, np.uint8)
    image[0] = 0
    values = np.array([[0.0, 1.0]])
    painted = pictures.overlay(image, values, ScalarMappable(Normalize(0, 1), pictures.SHADE))
    assert painted[1:, :2] == pytest.approx(1, abs=1e-3), "a white image stays white where nothing goes"
    assert painted[0, 0] == pytest.approx(0.6, abs=1e-3) and painted[1:, 2:].mean() < 0.3
    lightness = pictures.SHADE(np.linspace(0, 1, 256))[:, :3] @ [0.2989, 0.587, 0.114]
    assert (np.diff(lightness) < 1e-3).all(), "in grey print, too, more is darker"


def test_class_activation_maps_are_the_sum_over_channels_of_weight_times_map(small_run, glyphs):
    model = fewshot.load(small_run, device="cpu")
    scene = inspection.scene(glyphs, 3, seed=0)

    def maps(images) -> np.ndarray:  # (N, 16, 2, 2)
        x = model.normalise(to_unit(torch.from_numpy(images)))
        with torch.no_grad():
            for block in model.backbone.blocks:
                x = block(x)
        return x.double().numpy()

    shown, support = maps(scene.shown), maps(scene.support).reshape(5, 5, 16, 2, 2)
    prototypes = [np.mean(support[way], axis=0) for way in range(5)]
    expected = np.zeros((3, 2, 2))
    for image in range(3):
        weights = prototypes[image] - np.mean(prototypes, axis=0)
        for channel in range(16):
            expected[image] += weights[channel].mean() * shown[image, channel]
    np.testing.assert_allclose(inspection.class_activation_maps(model, scene), expected, rtol=1e-3, atol=1e-6)
    heat = inspection.heat(expected, 32)
    assert heat.shape == (3, 32, 32) and heat.min() == 0 and heat.max() == 1
    np.testing.assert_array_equal(heat[:, ::31, ::31].argmax(), expected.argmax())


def test_no_shown_image_is_in_the_support_that_the_classifier_is_fitted_to(glyphs):
    scene = inspection.scene(glyphs, 7, seed=3)
    support = {image.tobytes() for image in scene.support}
    assert len(set(scene.classes)) == 7 and len(scene.support) == 7 * inspection.SHOTS
    assert not any(image.tobytes() in support for image in scene.shown)


def test_magnitudes_are_numpys_histogram_of_the_batch_norms(small_run, glyphs):
    model = fewshot.load(small_run, device="cpu")
    images = glyphs["val"].images[:20]
    x = model.normalise(to_unit(torch.from_numpy(images.copy())))
    with torch.no_grad():
        x = model.backbone.blocks[0](x)
        sizes = model.backbone.blocks[1].norm(model.backbone.blocks[1].conv(x)).double().abs().numpy()
    counts, below = inspection.magnitudes(model, images, site=2)
    assert counts.tolist() == np.histogram(sizes, inspection.EDGES)[0].tolist()
    assert below == pytest.approx((sizes < 0.02).mean()) and counts.sum() > 0
    with torch.no_grad():
        model.backbone.blocks[1].norm.bias.fill_(1e6)
    counts, _ = inspection.magnitudes(model, images, site=2)
    assert counts[-1] == sizes.size, "what is beyond the last edge is in the last bin"


def test_what_a_layer_returned_is_kept_from_layers_that_work_in_place():
    class Network(torch.nn.Module):
        norm = torch.nn.Identity()

        def embed(self, images):
            self.norm(images).relu_()

    (kept,) = inspection.outputs(network := Network(), [network.norm], torch.tensor([-1.0, 2.0]))
    assert kept.tolist() == [-1, 2]


def test_activations_of_runs_and_of_an_untrained_network(small_run, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(small_run, other)
    edit(other, lr=0.5)
    out = tmp_path / "a.svg"
    assert run("activations", small_run, other, "--images", 40, "--threads", 1, "--out", out) == 0
    drawn = texts(out)
    assert f"glyphs: batch-norm outputs of the deepest block, 40 validation images, {NETWORK}" in drawn
    labels = [text.rsplit(":", 1)[0] for text in drawn if text.endswith("below 0.02")]
    assert labels == ["targetdrop, lr=0.1", "targetdrop, lr=0.5"]
    assert run("activations", *FRESH, "--site", 1, "--out", out) == 0
    assert "glyphs: batch-norm outputs of block 1, 2 validation images, conv4" in texts(out)


def edit(folder, **values) -> None:
    boards.edit(folder / "config.json", lambda config: config.update(values))


def test_cam_of_an_earlier_block_weighs_channels_by_the_gradient_of_the_score(small_run, glyphs):
    model = fewshot.load(small_run, device="cpu").double()
    scene = inspection.scene(glyphs, 2, seed=0)
    images, block = to_unit(torch.from_numpy(scene.shown)).double(), model.backbone.blocks[1]
    weights, own = inspection.class_weights(model, scene)

    def scores(shift) -> np.ndarray:  # (N,) of each image's own class, with `shift` added to the block's map
        hook = block.register_forward_hook(lambda module, _, output: output + shift)
        with torch.no_grad():
            embeddings = model.backbone(model.normalise(images))
        hook.remove()
        return (embeddings * weights[own].double()).sum(1).numpy()

    with torch.no_grad():
        first, second = model.backbone.blocks[:2]
        x = second(first(model.normalise(images))).numpy()  # (N, 16, 8, 8)
    slopes = np.empty(x.shape[:2])
    for channel in range(16):  # by central differences: the map's whole channel, a little up and down
        shift = torch.zeros(1, 16, 1, 1, dtype=torch.float64)
        shift[:, channel] = 1e-6
        slopes[:, channel] = (scores(shift) - scores(-shift)) / 2e-6 / 64
    expected = np.einsum("nc,nchw->nhw", slopes, x)
    found = inspection.class_activation_maps(fewshot.load(small_run, device="cpu"), scene, site=2)
    np.testing.assert_allclose(found, expected, rtol=2e-2, atol=2e-3 * np.abs(expected).max())
    assert model.training is False and found.shape == (2, 8, 8)


def test_the_two_kinds_of_class_activation_maps_agree_on_the_deepest_block(small_run, glyphs):
    model, scene = fewshot.load(small_run, device="cpu"), inspection.scene(glyphs, 3, seed=0)
    x, gradient = activations._gradients(model, model.backbone.blocks[-1], scene)
    by_gradient = torch.einsum("nc,nchw->nhw", gradient.mean((2, 3)), x)
    np.testing.assert_allclose(by_gradient, inspection.class_activation_maps(model, scene), rtol=1e-3, atol=1e-6)


def test_cam_says_where_there_is_nothing_to_see(small_run, tmp_path, capsys, monkeypatch):
    out = tmp_path / "cam.svg"
    flags = ["--images", 2, "--threads", 1, "--out", out]
    assert run("cam", small_run, "--site", 2, *flags) == 0
    assert "class activation maps of block 2 (8x8)" in " ".join(texts(out))
    before = out.read_bytes()
    maps = inspection.class_activation_maps
    monkeypatch.setattr(inspection, "class_activation_maps", lambda *args: maps(*args)[:, :1, :1])
    capsys.readouterr()
    assert run("cam", small_run, *flags) == console.USER_ERROR
    error = one_line_error(capsys)
    assert f"{small_run}: the map of the deepest block is 1x1" in error and "give an earlier block with --site" in error
    assert out.read_bytes() == before


def test_an_unfinished_run_is_named_in_the_picture(run_copy, tmp_path, capsys):
    boards.edit(run_copy / "environment.json", lambda facts: facts.pop("train_seconds"))
    out = tmp_path / "x.svg"
    for what, text in (
        ("cam", "(unfinished)"),
        ("masks", "trained with targetdrop (unfinished)"),
        ("activations", "(unfinished):"),
    ):
        assert run(what, run_copy, "--images", 2, "--threads", 1, "--out", out) == 0
        assert text in " ".join(texts(out))
        assert f"warning: {run_copy} is unfinished" in capsys.readouterr().out


def test_no_title_leaves_the_heading_out(small_run, tmp_path):
    out = tmp_path / "x.svg"
    for what, *flags in (("cam", "--images", 2), ("masks", "--images", 2), ("activations", "--images", 2), ("curves",)):
        assert run(what, small_run, *flags, "--no-title", "--out", out) == 0
        assert not any(text.startswith("glyphs: ") for text in texts(out))
        assert texts(out)


@pytest.mark.parametrize("ending", show.ENDINGS)
def test_only_pictures_of_its_own_are_replaced(small_run, tmp_path, capsys, ending):
    out = tmp_path / f"x{ending}"
    out.write_bytes(b"my thesis")
    assert run("curves", small_run, "--out", out) == console.USER_ERROR
    assert f"x{ending} was not drawn by this command: give another --out, or --overwrite" in one_line_error(capsys)
    assert out.read_bytes() == b"my thesis"
    assert run("curves", small_run, "--out", out, "--overwrite") == 0
    drawn = out.read_bytes()
    assert drawn != b"my thesis" and "(replaces the earlier file)" in capsys.readouterr().out
    assert run("curves", small_run, "--out", out) == 0, "its own, and to the same bytes"
    assert out.read_bytes() == drawn and "(replaces the earlier file)" in capsys.readouterr().out
    assert run("curves", small_run, "--out", tmp_path / f"new{ending}") == 0
    assert "replaces" not in capsys.readouterr().out
    assert (tmp_path / f"new{ending}").read_bytes() == drawn
    if ending == ".pdf":
        assert drawn.startswith(b"%PDF-") and b"CreationDate" not in drawn
    folder = tmp_path / f"folder{ending}"
    folder.mkdir()
    assert run("curves", small_run, "--out", folder) == console.USER_ERROR
    assert "is a folder" in one_line_error(capsys)


def test_cam_draws_a_column_a_run_and_names_them_by_what_differs(small_run, tmp_path):
    other = shutil.copytree(small_run, tmp_path / "other")
    out = tmp_path / "cam.svg"
    flags = ["--images", 2, "--threads", 1, "--out", out]
    assert run("cam", small_run, small_run, *flags) == 0
    assert out.read_text().count("<image") == 2 * 2 + 1, "the same run twice is one column"
    assert "targetdrop" in texts(out)
    edit(other, seed=7)
    assert run("cam", small_run, other, *flags) == 0
    assert out.read_text().count("<image") == 2 * 3 + 1
    drawn = texts(out)
    assert f"glyphs: class activation maps of the deepest block (2x2) of {NETWORK}" in " ".join(drawn)
    assert {"targetdrop,", "seed=0", "seed=7"} <= set(drawn)


def test_curves_are_drawn_of_runs_that_are_still_going_on(small_run, run_copy, tmp_path, capsys):
    lines = (small_run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run_copy / "metrics.jsonl").write_text("".join(lines[:2]) + lines[2][:10])
    (run_copy / "best.safetensors").unlink()
    boards.edit(run_copy / "environment.json", lambda facts: facts.pop("train_seconds"))
    out = tmp_path / "curves.svg"
    assert run("curves", small_run, run_copy, "--out", out) == 0
    drawn = texts(out)
    titles = {"training loss", "light: every step"}
    assert titles | {"validation, 1-shot", "validation, 5-shot"} <= set(drawn)
    assert f"targetdrop ({small_run})" in drawn, "a copy is no other seed: both are drawn"
    assert f"targetdrop ({run_copy}) (unfinished: step 2 of 6)" in " ".join(drawn)
    assert f"warning: {run_copy} is unfinished: " in capsys.readouterr().out
    assert run("curves", run_copy, "--out", out) == 0, "before the first validation"
    assert "validation, 1-shot" not in texts(out) and "targetdrop (unfinished: step 2 of 6)" in texts(out)
    curves = pictures.read_curves(fewshot.runs.Run.open(small_run))
    logged = [json.loads(line) for line in lines]
    assert curves.losses == [(row["step"], row["loss"]) for row in logged if "loss" in row]
    assert curves.accuracies["5shot"] == [(r["step"], r["validation"]["5shot"]) for r in logged if "validation" in r]


def seed_variant(run, folder, seed, factor):
    """A copy of a run with another seed, every loss and accuracy `factor` times as large."""
    shutil.copytree(run, folder)
    edit(folder, seed=seed)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        if "loss" in row:
            row["loss"] *= factor
        if "validation" in row:
            row["validation"] = {name: value * factor for name, value in row["validation"].items()}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    boards.reseal(folder)
    return folder


def test_curves_of_several_seeds_are_their_mean_and_range(small_run, tmp_path):
    factors = {1: 0.5, 2: 1.2, 3: 0.7}
    seeds = [seed_variant(small_run, tmp_path / f"s{seed}", seed, factor) for seed, factor in factors.items()]
    other = shutil.copytree(small_run, tmp_path / "other")
    edit(other, lr=0.5)
    short = (seeds[2] / "metrics.jsonl").read_text().splitlines(keepends=True)[:-1]  # without the last validation
    (seeds[2] / "metrics.jsonl").write_text("".join(short))
    boards.reseal(seeds[2])
    args = show.parser().parse_args(["curves", *map(str, [*seeds, other])])
    _, figure = show._curves(args)
    losses, five = figure.axes[0], figure.axes[2]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["targetdrop, lr=0.1, mean of 3 seeds", "targetdrop, lr=0.5"]
    one = pictures.read_curves(fewshot.runs.Run.open(small_run))
    logged = np.array([loss for _, loss in one.losses])
    mean, band = np.mean(list(factors.values())), (0.5, 1.2)
    np.testing.assert_allclose(losses.lines[0].get_ydata(), mean * logged)
    (area,) = losses.collections
    edges = area.get_paths()[0].vertices[:, 1]
    assert (edges.min(), edges.max()) == pytest.approx((band[0] * logged.min(), band[1] * logged.max()))
    (step, accuracy), *_ = one.accuracies["5shot"]
    assert five.lines[0].get_xydata().tolist() == [[step, pytest.approx(100 * mean * accuracy)]], "steps that all have"
    assert len(five.lines[1].get_xdata()) == 2 and not five.collections[1:]


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_the_same_command_gives_the_same_bytes_and_a_picture(small_run, tmp_path, ending):
    drawn = {}
    for name in ("a", "b"):
        for seed in (0, 1):
            out = tmp_path / f"{name}{seed}.{ending}"
            flags = ["--channel", "most", "--images", 2, "--dpi", 80, "--threads", 1]
            assert run("masks", small_run, *flags, "--seed", seed, "--out", out) == 0
            drawn[name, seed] = out.read_bytes()
    assert drawn["a", 0] == drawn["b", 0] and drawn["a", 1] == drawn["b", 1] != drawn["a", 0]
    if ending == "png":
        picture = Image.open(io.BytesIO(drawn["a", 0]))
        assert picture.format == "PNG" and 250 < picture.width < 500 and 200 < picture.height < 500
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 50
    else:
        assert drawn["a", 0].startswith(b"<?xml") and b"<dc:date>" not in drawn["a", 0]


@pytest.mark.parametrize(
    "args, expected",
    [
        ([], "masks|cam|activations|curves"),
        (["masks", "--reg", "dropout", "--out", "masks.jpg"], "masks.jpg: a picture ends in .png, .svg or .pdf"),
        (["masks", "--reg", "dropout", "--dpi", "1"], "--dpi 1: give 10 to 1000"),
        (["masks"], "name regularizers with --reg"),
        (["masks", "nowhere"], "nowhere is not a run folder"),
        (["masks", "RUN", "--backbone", "conv4"], "--backbone conv4: a run has its own"),
        (["masks", "RUN", "--site", "1"], "targetdrop is not at site 1 but at 2, 3: give that --site"),
        (["masks", *FRESH, "--reg", "dropout@2", "--site", "3"], "dropout@2 is not at site 3 but at 2"),
        (["masks", *FRESH, "--reg", "dropout", "--site", "9"], "no site 9; this backbone has 1, 2, 3, 4"),
        (["masks", *FRESH, "--reg", "dropout", "--site", "0"], "no site 0; this backbone has 1, 2, 3, 4"),
        (["masks", *FRESH, "--reg", "droput"], "Did you mean 'dropout'?"),
        (["masks", *FRESH, "--reg", "droppath"], "this backbone has none; take resnet12"),
        (["masks", *FRESH, "--reg", "none"], "none drops nothing, so there is no mask to draw"),
        (["masks", *FRESH, "--reg", "targetdrop+autoaugment"], "autoaugment works without a mask"),
        (["masks", *FRESH, "--reg", "test_show.Maskless"], "test_show.Maskless works without a mask"),
        (["masks", *FRESH, "--reg", "dropout", "--channel", "64"], "--channel 64: a mask here has 64"),
        (["masks", *FRESH, "--reg", "dropout", "--channel", "all"], "invalid channel value"),
        (["masks", *FRESH, "--reg", "dropout", "--images", "80"], "has 79; give 1 to 79"),
        (["cam", "RUN", "COPY"], "trained on glyphs and mini-imagenet: name one with --dataset"),
        (["cam", "RUN", "WEIGHTLESS"], "has no weights (best.safetensors)"),
        (["cam", "RUN", "--site", "5"], "--site 5: this backbone has blocks 1 to 4"),
        (["activations", "RUN", "--site", "5"], "--site 5: this backbone has blocks 1 to 4"),
        (["activations", "RUN", "--images", "0"], "--images 0: give at least 1"),
        (["curves", "RUN", "SILENT"], "has no metrics yet"),
        (["curves", "DAMAGED"], "metrics.jsonl is damaged"),
    ],
)
def test_a_users_mistake_is_one_line_and_draws_nothing(small_run, tmp_path, monkeypatch, capsys, args, expected):
    spoil = {
        "COPY": lambda folder: edit(folder, dataset="mini-imagenet"),
        "WEIGHTLESS": lambda folder: (folder / "best.safetensors").unlink(),
        "SILENT": lambda folder: (folder / "metrics.jsonl").unlink(),
        "DAMAGED": lambda folder: (folder / "metrics.jsonl").write_text('{"loss": 1}\n'),
    }
    for name in spoil.keys() & set(args):
        spoil[name](shutil.copytree(small_run, tmp_path / name))
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.rglob("*"))
    assert run(*(small_run if arg == "RUN" else arg for arg in args)) == console.USER_ERROR
    assert expected in one_line_error(capsys)
    assert set(tmp_path.rglob("*")) == before


def test_each_kind_answers_help():
    for kind in ([], ["masks"], ["cam"], ["activations"], ["curves"]):
        done = command("show", *kind, "--help")
        assert done.returncode == 0 and "usage" in done.stdout


def test_a_branchs_masks_are_shown_at_the_deepest_branch(tmp_path):
    """The last of resnet20's nine branches, not that of its third stage."""
    model = models.build("resnet20", "droppath", "proto", 32, (0.5,) * 3, (0.2,) * 3)
    (deepest,) = inspection.choose(model, inspection.expand("droppath", "none"), None)
    assert deepest.site.label == "9"


def test_a_mask_is_guided_by_the_class_that_the_model_names():
    glyphs = open_dataset("glyphs")
    model = models.build("conv4", "camdrop:label=named", "proto", 32, glyphs.mean, glyphs.std).eval()
    scene = inspection.scene(glyphs, images=6, seed=0)
    guide = inspection.guide(model, scene)
    centres = model.embed(scene.support).view(len(scene.support) // inspection.SHOTS, inspection.SHOTS, -1).mean(1)
    assert torch.equal(guide.named, torch.cdist(model.embed(scene.shown), centres).argmin(1))
    assert not torch.equal(guide.named, guide.labels)


def test_seeds_that_different_code_trained_are_lines_of_their_own(small_run, tmp_path):
    seeds = [seed_variant(small_run, tmp_path / f"s{seed}", seed, 1.0) for seed in (1, 2)]
    other = {"ours": {}, "users": {"a.py": "1"}}
    boards.edit(seeds[1] / "config.json", lambda config: config["resolved"].update(code=other))
    _, groups = curves.grouped([fewshot.runs.Run.open(folder) for folder in seeds])
    assert [len(group.runs) for group in groups] == [1, 1]
