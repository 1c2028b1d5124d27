"""Where imle_net looks over a whole split: weights of leads and windows per class, the sharpest and flattest maps.

python -m experiments.attention --model imle_net --data_dir data/ptb --split test
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from experiments.cli import (
    Parser,
    add_cache_flag,
    add_checkpoint_flags,
    add_data_flags,
    execute,
    positive_int,
    run_name,
)
from experiments.task import add_task_flags, check, check_task_flags, suffix, task_of
from experiments.test import choose
from imlenet_jax.classifier import Classifier, load
from imlenet_jax.data.loader import Split
from imlenet_jax.data.open import open_dataset, usual_task
from imlenet_jax.errors import UserError
from imlenet_jax.evaluation.diagrams import png
from imlenet_jax.explanation.attention import Attention, attention_maps
from imlenet_jax.explanation.attention_report import draw_means, page
from imlenet_jax.explanation.attention_summary import as_json, mean_weights, per_record, weights_of
from imlenet_jax.explanation.explain import Explanation
from imlenet_jax.explanation.figures import write_figures
from imlenet_jax.explanation.page import write_page
from imlenet_jax.files import write_atomically, write_json
from imlenet_jax.models import MODELS, entry
from imlenet_jax.training.parallel import print_devices

CHUNK = 256  # records whose maps are held at once: 25 MB


def make_parser() -> Parser:
    """The flags."""
    parser = Parser(prog="python -m experiments.attention", description="The attention of imle_net over a split.")
    parser.add_argument("--model", default="imle_net", help=f"one of {', '.join(MODELS)}; only imle_net has attention")
    add_data_flags(parser)
    add_checkpoint_flags(parser)
    add_task_flags(parser)
    add_cache_flag(parser)
    parser.add_argument("--out", type=Path, default=Path("results/attention"), help="<model>_<split>/ is made below it")
    parser.add_argument(
        "--examples", type=positive_int, default=3, help="sharpest and flattest records to draw, of each"
    )
    return parser


def main() -> None:
    """Parse the flags and run."""
    execute(make_parser(), run)


def run(args: argparse.Namespace) -> None:
    """Summarise, draw, write."""
    entry(args.model)
    if args.model != "imle_net":
        raise UserError(f"--model {args.model} has no attention: only imle_net can be asked where it looked")
    check_task_flags(args)
    print_devices()
    name = run_name(args.model, asked=suffix(args, usual_task(args.data_dir)))
    classifier = load(args.checkpoint_dir / name, args.which, compilation_cache=args.compilation_cache)
    if not classifier.attends:
        raise UserError(f"{name} takes records in windows (--crop), where there is no attention over the whole")
    dataset = open_dataset(
        args.data_dir, classifier.sampling_rate, allow_missing=args.allow_missing, verify=args.verify
    )
    check(classifier.meta, args.model, dataset, task_of(args, dataset))
    split = choose(dataset, args)
    out = args.out / f"{name}_{args.split}"
    out.mkdir(parents=True, exist_ok=True)  # before the work, so that a mistake in --out costs none

    weights = weights_of(_maps(classifier, split, args.batchsize))
    seconds = dataset.length / dataset.sampling_rate / weights.windows.shape[1]
    starts = [f"{seconds * number:g}" for number in range(weights.windows.shape[1])]
    leads = mean_weights(weights.leads, split.labels, classifier.classes, classifier.leads)
    windows = mean_weights(weights.windows, split.labels, classifier.classes, starts)
    records = per_record(weights, split.ecg_id, split.labels, classifier.classes, classifier.leads)

    for table, frame in (("leads", leads), ("windows", windows), ("records", records)):
        write_atomically(out / f"{table}.csv", frame.to_csv(index=False).encode())
    figures = {
        "Leads": png(draw_means(leads, "Channel level: weight of each lead", "lead")),
        "Windows": png(
            draw_means(windows, "Rhythm level: weight of each window", f"start of the {seconds:g} s window")
        ),
    }
    for caption, image in figures.items():
        write_atomically(out / f"{caption.lower()}.png", image)
    sharp, flat = records.head(args.examples), records.tail(args.examples)[::-1]
    links = _draw_examples(classifier, split, pd.concat([sharp, flat])["ecg_id"], args.batchsize, out)

    about = {
        "model": args.model,
        "task": classifier.meta.task,
        "epoch": classifier.meta.epoch,
        "split": args.split,
        "folds": list(split.folds),
        "records": len(split),
        "data_fingerprint": dataset.fingerprint,
    }
    intervals = "95 % percentile bootstrap over records, 1000 resamples, seed 0; they do not cover another training"
    write_json(
        out / "summary.json",
        about
        | {"intervals": intervals, "leads": as_json(leads), "windows": as_json(windows)}
        | {
            "effective_share": {f"{q}%": float(np.percentile(weights.effective, q)) for q in (5, 50, 95)},
            "sharpest": sharp["ecg_id"].tolist(),
            "flattest": flat["ecg_id"].tolist(),
        },
    )
    lines = [
        f"{len(split):,} records of {args.split} (folds {', '.join(map(str, split.folds))}), checkpoint of epoch "
        f"{classifier.meta.epoch}. A record with several labels counts in each of its classes.",
        f"Intervals: {intervals}.",
        "Effective share: exp(entropy) of the combined map over the number of samples; 100 % is an even map.",
    ]
    tables = {"Sharpest maps": sharp, "Flattest maps": flat}
    text = page(f"Attention of {name}, {args.split}", lines, figures, leads, tables, links)
    write_atomically(out / "index.html", text.encode())
    _print(leads, weights.effective)
    print(f"page: {out / 'index.html'}")


def _maps(classifier: Classifier, split: Split, batchsize: int) -> Iterator[Attention]:
    for start in tqdm(range(0, len(split), CHUNK), desc="attention", unit=f"{CHUNK} records"):
        signals = split.dataset.millivolts(split.rows[start : start + CHUNK])
        yield attention_maps(classifier, signals, batchsize)


def _draw_examples(
    classifier: Classifier, split: Split, ecg_ids: pd.Series, batchsize: int, out: Path
) -> dict[int, str]:
    """Figures and a page per record; where the pages are, relative to `out`."""
    chosen = {int(number): np.flatnonzero(split.ecg_id == number) for number in ecg_ids}
    places = np.concatenate(list(chosen.values()))
    signals = split.dataset.millivolts(split.rows[places])
    probabilities, maps = classifier.predict_proba(signals, batchsize), attention_maps(classifier, signals, batchsize)
    thresholds = tuple(classifier.meta.thresholds or [None] * len(classifier.classes))
    links = {}
    for index, number in enumerate(tqdm(chosen, desc="figures", unit="record")):
        labels = ", ".join(np.array(classifier.classes)[split.labels[places[index]] > 0])
        explanation = Explanation(
            name=f"record {number}",
            signal_mv=signals[index],
            sampling_rate=classifier.sampling_rate,
            leads=classifier.leads,
            classes=classifier.classes,
            probabilities=probabilities[index],
            thresholds=thresholds,
            notes=(f"Labels of the data set: {labels}.",),
            attention=maps.record(index),
            exclusive=classifier.task.exclusive,
        )
        write_figures(explanation, out / "records" / str(number))
        links[number] = f"records/{number}/channel_visualization.html"
        write_page(explanation, out / links[number])
    return links


def _print(leads: pd.DataFrame, effective: np.ndarray) -> None:
    """The three most weighted leads of each class, and how sharp maps are."""
    for group, rows in leads.dropna().groupby("class", sort=False):
        top = rows.nlargest(3, "mean")[["name", "mean", "low", "high"]].to_numpy()
        words = [f"{name} {mean:.1%} [{low:.1%}, {high:.1%}]" for name, mean, low, high in top]
        print(f"{group:5} ({rows['n'].iloc[0]} records): {', '.join(words)}")
    low, middle, high = np.percentile(effective, [5, 50, 95])
    print(f"effective share of the samples: median {middle:.1%} (5th to 95th percentile {low:.1%} to {high:.1%})")


if __name__ == "__main__":
    main()
