"""python -m fewshot.show: pictures of what regularizers drop, where networks look, how they learn; lists of sites."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from fewshot.core.console import Parser, add_trust, run, summary, terminal
from fewshot.core.errors import UserError
from fewshot.recipes import resolve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fewshot.data import Dataset
    from fewshot.reports.views import Network

ENDINGS = (".png", ".svg", ".pdf")
LARGEST_IMAGE = 4096  # pixels


def parser() -> Parser:
    parser = Parser(prog="fewshot.show", description=summary(__doc__))
    kinds = parser.add_subparsers(dest="what", required=True, metavar="masks|cam|activations|curves|sites")

    def kind(name: str, text: str) -> Parser:
        made = kinds.add_parser(name, help=text, description=text[0].upper() + text[1:])
        made.add_argument("--out", default=f"{name}.png", metavar="FILE", help="picture to write: .png, .svg or .pdf")
        made.add_argument("--dpi", type=int, default=150, metavar="N", help="dots per inch")
        made.add_argument("--no-title", dest="title", action="store_false", help="no heading in the picture")
        made.add_argument("--overwrite", action="store_true", help="replace --out even if this command did not make it")
        return made

    masks = kind("masks", "what each regularizer takes away from a few validation images, and where")
    masks.add_argument("run", nargs="?", metavar="RUN", help="run folder: its weights, and without --reg its methods")
    _untrained(masks)
    masks.add_argument(
        "--reg", action="append", metavar="REG", help="regularizers to show, a column each; may be repeated"
    )
    _site(masks, "after which they act (default: the deepest they share)")
    masks.add_argument(
        "--channel",
        type=channel,
        metavar="N",
        help='channel to show, or "most": the one that loses most (default: the mean of all)',
    )
    _images(masks, 4, "validation images, each of another class")
    cam = kind("cam", "class activation maps of one or several runs on the same validation images")
    cam.add_argument("runs", nargs="+", metavar="RUN", help="run folders")
    _site(cam, "to look at, by Grad-CAM (default: the deepest block)")
    _images(cam, 4, "validation images, each of another class")
    activations = kind("activations", "how large a block's batch-norm outputs are, in one or several runs")
    activations.add_argument("runs", nargs="*", metavar="RUN", help="run folders")
    _untrained(activations)
    _site(activations, "to count (default: the deepest block)")
    _images(activations, 512, "validation images, evenly spread")
    curves = kind("curves", "training loss and validation accuracy by step; seeds of one configuration as their mean")
    curves.add_argument("runs", nargs="+", metavar="RUN", help="run folders, finished or not")
    text = "the modules of a network at which regularizers can act, and the shapes of their maps"
    sites = kinds.add_parser("sites", help=text, description=text[0].upper() + text[1:])
    sites.add_argument("run", nargs="?", metavar="RUN", help="run folder whose network is listed")
    _untrained(sites)
    sites.add_argument("--image-size", type=int, metavar="N", help="side of the images in pixels (default: 84)")
    add_trust(sites)
    return parser


def _site(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--site", type=_label, metavar="SITE", help=f"block number or module name {text}")


def _label(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def _untrained(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--backbone", help="without a run: the untrained network to show (default: conv4)")


def _images(parser: argparse.ArgumentParser, images: int, text: str) -> None:
    parser.add_argument("--images", type=int, default=images, metavar="N", help=text)
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of images, masks and untrained weights")
    parser.add_argument(
        "--dataset", default="auto", help="data set; auto: the run's, else the one that training would choose"
    )
    parser.add_argument(
        "--data-root", help="folder of prepared data sets (default: $FEWSHOT_DATA, else the run's, else data)"
    )
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="CPU threads; 0: torch's choice")
    add_trust(parser)


def channel(text: str) -> int | str:
    return text if text == "most" else int(text)


def main(argv: list[str] | None = None) -> None:
    args = parser().parse_args(argv)
    if args.what == "sites":
        return _sites(args)
    if args.what != "masks":
        args.runs = list(dict.fromkeys(args.runs))  # the same run twice is one line
    out = Path(args.out)
    if out.suffix.lower() not in ENDINGS:
        raise UserError(f"--out {args.out}: a picture ends in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}")
    if not 10 <= args.dpi <= 1000:
        raise UserError(f"--dpi {args.dpi}: give 10 to 1000")

    from fewshot.reports import pictures
    from fewshot.runs import Run

    if out.is_dir():
        raise UserError(f"--out {out} is a folder; give the name of a picture in it")
    earlier = out.exists()
    if earlier and not args.overwrite and not pictures.ours(out):
        raise UserError(f"{out} was not drawn by this command: give another --out, or --overwrite to replace it")
    heading, figure = {"masks": _masks, "cam": _cam, "activations": _activations, "curves": _curves}[args.what](args)
    pictures.save(figure, out, args.dpi)
    console = terminal()
    for folder in [*getattr(args, "runs", []), *([args.run] if getattr(args, "run", None) else [])]:
        shown = Run.open(folder)
        if not shown.trained:
            console.print(f"warning: {folder} is unfinished: the picture shows it as far as it has come")
        if args.what != "curves" and (changed := shown.changed_code):
            console.print(
                f"warning: {changed} has changed since {folder} was trained: the picture is drawn with the new code"
            )
    console.print(f"{out}: {heading}{' (replaces the earlier file)' if earlier else ''}")


def _sites(args: argparse.Namespace) -> None:
    from fewshot.reports.sites import print_sites
    from fewshot.runs import Run

    name, size = args.backbone or "conv4", 84 if args.image_size is None else args.image_size
    if args.run:
        if args.backbone or args.image_size is not None:
            raise UserError("--backbone, --image-size: a run has its own; give one or the other")
        run_folder = Run.open(args.run)
        run_folder.check_code(args.trust)
        name, size = run_folder.config.backbone, run_folder.images[0]
    if not 1 <= size <= LARGEST_IMAGE:
        raise UserError(f"--image-size {size}: give 1 to {LARGEST_IMAGE}")
    print_sites(terminal(), name, size)


def _masks(args: argparse.Namespace) -> tuple[str, Figure]:
    from fewshot.reports import views

    if not args.run and not args.reg:
        raise UserError("there is nothing to show: name regularizers with --reg, or a run that has some")
    dataset, (network,) = _networks(args, [args.run] if args.run else [])
    reg = "+".join(args.reg) if args.reg else None
    return views.masks(dataset, network, reg, args.site, args.channel, args.images, args.seed, args.title)


def _cam(args: argparse.Namespace) -> tuple[str, Figure]:
    from fewshot.reports import views

    dataset, networks = _networks(args, args.runs)
    return views.cam(dataset, networks, args.site, args.images, args.seed, args.title)


def _activations(args: argparse.Namespace) -> tuple[str, Figure]:
    from fewshot.reports import views

    dataset, networks = _networks(args, args.runs)
    return views.activations(dataset, networks, args.images, args.site, args.title)


def _curves(args: argparse.Namespace) -> tuple[str, Figure]:
    from fewshot.reports import curves, pictures
    from fewshot.runs import Run

    heading, groups = curves.grouped([Run.open(folder) for folder in args.runs])
    return heading, pictures.training_curves(heading if args.title else "", groups)


def _networks(args: argparse.Namespace, folders: list[str]) -> tuple[Dataset, list[Network]]:
    """The data set to take images from, and each run's network; without a run, an untrained one."""
    from fewshot import model as models
    from fewshot.core import compute
    from fewshot.data import open_dataset
    from fewshot.reports.views import Network
    from fewshot.runs import Run

    where = compute.choose("cpu", "fp32")
    compute.settle(where, args.threads)
    runs = [Run.open(folder) for folder in folders]
    configs = [each.config for each in runs]
    if runs and getattr(args, "backbone", None):
        raise UserError(f"--backbone {args.backbone}: a run has its own; give one or the other")
    for each in runs:
        each.check_code(args.trust, dataset=args.dataset == "auto")
    root = args.data_root or os.environ.get("FEWSHOT_DATA") or (configs[0].data_root if runs else "data")
    dataset = open_dataset(_dataset(args, [config.dataset for config in configs], root), root)
    if not runs:  # the network that training with this seed begins with
        config = resolve(dataset.name, {"backbone": args.backbone or "conv4"})
        size, mean, std = dataset.image_size, dataset.mean, dataset.std
        model = models.build(config.backbone, "none", config.head, size, mean, std, args.seed).eval()
        return dataset, [Network(config, model)]
    loaded = [models.load_run(each, where, args.trust) for each in runs]
    for folder, model in zip(folders, loaded, strict=True):
        if dataset.image_size != model.backbone.image_size:
            raise UserError(
                f"{folder} was trained on {model.backbone.image_size} px images, and {dataset.name} has"
                f" {dataset.image_size} px; show it on another --dataset"
            )
    return dataset, [
        Network(each.config, model, folder, unfinished=not each.trained, changed=each.changed_code)
        for each, model, folder in zip(runs, loaded, folders, strict=True)
    ]


def _dataset(args: argparse.Namespace, trained_on: list[str], root: str) -> str:
    if args.dataset != "auto":
        return args.dataset
    if len(set(trained_on)) > 1:
        raise UserError(f"these runs were trained on {' and '.join(sorted(set(trained_on)))}: name one with --dataset")
    if trained_on:
        return trained_on[0]
    from fewshot.data import default_dataset

    return default_dataset(root)[0]


if __name__ == "__main__":
    raise SystemExit(run(main))
