"""Ask a trained network about an ECG of your own, and see where it looked.

python -m experiments.inference --dir data/sample/04827_lr --model imle_net
"""

import argparse
import contextlib
import csv
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from tqdm.auto import tqdm

from experiments.cli import (
    Parser,
    add_cache_flag,
    add_precision_flag,
    boolean,
    execute,
    lead_map,
    names,
    positive_float,
    positive_int,
)
from experiments.task import add_network_flags, check_task_flags, load_network
from imlenet_jax.classifier import Classifier
from imlenet_jax.data.ecg import ECG, SHORT, read_ecg
from imlenet_jax.data.records import UNITS_PER_MV
from imlenet_jax.data.sources import TableFormat, find_records, is_table
from imlenet_jax.errors import UserError
from imlenet_jax.evaluation.report import MANY
from imlenet_jax.explanation.explain import MAPS, PURPOSE, Explanation, Sets, explain
from imlenet_jax.explanation.figures import write_figures
from imlenet_jax.explanation.page import write_page
from imlenet_jax.files import move_aside, read_json, write_json
from imlenet_jax.models import entry
from imlenet_jax.training.parallel import print_devices

REPORT, PAGE, PREDICTIONS = "explanation.json", "channel_visualization.html", "predictions.csv"


def make_parser() -> Parser:
    """The flags."""
    parser = Parser(prog="python -m experiments.inference", description=f"Predict and explain ECGs. {PURPOSE}")
    parser.add_argument(
        "--dir",
        type=Path,
        nargs="+",
        required=True,
        metavar="RECORD",
        help="WFDB records (without suffix), .csv or .npy files, or folders of them",
    )
    add_network_flags(parser)
    parser.add_argument("--out", type=Path, default=Path("results"), help="<record>/ is made below it")
    parser.add_argument("--figures", type=boolean, default=True, help="False writes the JSON only")
    parser.add_argument("--batchsize", type=positive_int, default=32, help="records per step")
    parser.add_argument("--sampling_rate", type=positive_float, help="of .csv and .npy files, Hz")
    parser.add_argument("--leads", type=names, help="columns of .csv and .npy files, as I,II,V1; a .csv may name them")
    parser.add_argument("--unit", type=_unit, help="of .csv and .npy files: mV, uV or V; mV unless the columns say")
    parser.add_argument(
        "--lead_map", type=lead_map, default={}, help="names to take for a standard lead, as MLII=II,V5R=V5"
    )
    parser.add_argument(
        "--map", choices=MAPS, default=MAPS[0], help="attention is of imle_net, gradients are of any network"
    )
    parser.add_argument(
        "--explain_class",
        nargs="+",
        default=[],
        metavar="CLASS",
        help="of gradients; the predicted classes unless given",
    )
    parser.add_argument("--short", choices=SHORT, default=SHORT[0], help="recordings that do not fill a window")
    parser.add_argument(
        "--sets",
        type=Path,
        metavar="FILE",
        help="say which classes cannot be ruled out: a ..._sets.json of experiments.test",
    )
    add_precision_flag(parser)
    add_cache_flag(parser)
    return parser


def main() -> None:
    """Parse the flags and run."""
    execute(make_parser(), run)


def run(args: argparse.Namespace) -> None:
    """Explain every record; those that cannot be used are named at the end."""
    entry(args.model)
    check_task_flags(args)
    files = find_records(args.dir)
    table = TableFormat(args.sampling_rate, args.leads, args.unit)
    if table != TableFormat() and not any(map(is_table, files)):
        raise UserError(
            "--sampling_rate, --leads and --unit are for .csv, .csv.gz and .npy files; WFDB headers have their own"
        )
    if any(part.is_file() for part in (args.out, *args.out.parents)):
        raise UserError(f"--out {args.out} is, or lies below, a file: name a folder")
    print_devices()
    folder, classifier = load_network(args, args.precision)
    if unknown := set(args.explain_class) - set(classifier.classes):
        raise UserError(f"--explain_class {min(unknown)}: the network's classes are {', '.join(classifier.classes)}")
    sets = None
    if args.sets:
        from experiments.results import read_sets  # needs pandas and scipy, which take a second

        sets = read_sets(args.sets, classifier.meta)

    folds = ", ".join(map(str, classifier.meta.training.get("val_folds", ())))
    thresholds = f"thresholds chosen on fold {folds}" if classifier.meta.thresholds else "no thresholds"
    rule = "the most probable class is predicted" if classifier.task.exclusive else thresholds
    print(f"{folder}: epoch {classifier.meta.epoch}, {rule}")

    failed: list[str] = []
    bar = tqdm(total=len(files), unit="ECG", disable=len(files) == 1 or None)  # nor where no terminal shows it
    args.out.mkdir(parents=True, exist_ok=True)
    kinds = ("prob", "predicted", *(["possible"] if sets else []))
    with _open_predictions(args.out / PREDICTIONS, classifier.classes, kinds) as predictions:
        _answer(args, files, table, classifier, sets, folder, predictions, bar, failed)
    bar.close()
    print(f"{args.out / PREDICTIONS}\n{PURPOSE}")
    if failed:
        raise UserError(f"no prediction for {', '.join(failed)}, for the reasons given above")


def _answer(
    args: argparse.Namespace,
    files: list[Path],
    table: TableFormat,
    classifier: Classifier,
    sets: Sets | None,
    folder: Path,
    predictions: TextIO,
    bar: tqdm,
    failed: list[str],
) -> None:
    """Predict and explain all files, and write each answer when it is there."""
    rows = csv.writer(predictions)

    def refuse(name: str, file: Path, reason: str) -> None:
        failed.append(name)
        rows.writerow([name, file, *[""] * ((3 if sets else 2) * len(classifier.classes)), reason])
        bar.update()

    ecgs = _read_all(files, classifier, table, args, bar, refuse)
    size = 0
    while batch := list(itertools.islice(ecgs, args.batchsize)):
        size = max(size, len(batch))  # a first batch that is not full is the only one
        explanations = explain(classifier, batch, size, sets, args.map, args.explain_class)
        for ecg, explanation in zip(batch, explanations, strict=True):
            about = {"source": str(ecg.path.resolve()), "checkpoint": str(folder), "epoch": classifier.meta.epoch}
            results = _folder(args.out, ecg.name, about)
            write_json(results / REPORT, explanation.as_json() | about)
            if args.figures:
                write_figures(explanation, results)
                write_page(explanation, results / PAGE)
            answers = [*explanation.predicted, *(explanation.possible if sets else ())]
            decisions = ["" if yes is None else int(yes) for yes in answers]
            probabilities = [f"{value:.6f}" for value in explanation.probabilities]
            rows.writerow([ecg.name, ecg.path, *probabilities, *decisions, "; ".join(explanation.notes)])
            tqdm.write(_summary(explanation, results))
            bar.update()


@contextlib.contextmanager
def _open_predictions(path: Path, classes: tuple[str, ...], kinds: tuple[str, ...]) -> Iterator[TextIO]:
    """The table of all answers, written as they come; that of an earlier call is moved aside."""
    if old := move_aside(path):
        print(f"earlier predictions moved to {old}")
    columns = [f"{kind}_{name}" for kind in kinds for name in classes]
    with open(path, "w", encoding="utf-8", newline="", buffering=1) as file:
        csv.writer(file).writerow(["name", "file", *columns, "notes"])
        yield file


def _read_all(
    files: list[Path],
    classifier: Classifier,
    table: TableFormat,
    args: argparse.Namespace,
    bar: tqdm,
    refuse: Callable[[str, Path, str], None],
) -> Iterator[ECG]:
    """The windows of all files that can be predicted; says what is implausible, and calls `refuse` for what cannot be."""
    rate, leads = classifier.sampling_rate, classifier.leads
    seconds = classifier.samples / rate
    for file in files:
        try:
            windows = read_ecg(file, leads, rate, seconds, table, args.lead_map, args.short)
        except (UserError, OSError) as error:
            tqdm.write(f"unusable: {error}")
            refuse(str(file), file, str(error))
            continue
        bar.total += len(windows) - 1
        for ecg in windows:
            for finding in ecg.findings:
                tqdm.write(f"{ecg.name}: implausible: {finding}")
            if ecg.complete:
                yield ecg
            else:
                refuse(f"{ecg.name} ({file})", file, "; ".join(ecg.findings))


def _summary(explanation: Explanation, folder: Path) -> str:
    lines = [f"{explanation.name}: {explanation.verdict}"]
    if len(explanation.classes) > MANY:
        lines.append(f"  the most probable of {len(explanation.classes)} classes:")
    for name, probability, threshold, predicted in explanation.most_probable(MANY):
        decision = "" if predicted is None else f"  {'yes' if predicted else 'no '}"
        decision += "" if threshold is None else f"  (threshold {threshold:.3f})"
        lines.append(f"  {name:5}{probability:7.3f}{decision}")
    if explanation.sets:
        lines.append(f"  not ruled out, at a coverage of {explanation.sets.coverage:g}: {explanation.not_ruled_out}")
    for name in explanation.gradients:
        shares = explanation.by_lead(name)
        most = [f"{lead} {value:+.2f}" for lead, value in (*shares[:3], shares[-1])]
        lines.append(f"  logit of {name} by lead: {', '.join(most[:-1])} ... {most[-1]}")
    attended = [f"{lead} {100 * share:.1f} %" for lead, share in explanation.most_attended()]
    if attended:
        lines.append(f"  most attended leads: {', '.join(attended)} (even: {100 / len(explanation.leads):.1f} %)")
    return "\n".join([*lines, *(f"  note: {note}" for note in explanation.notes), f"  {folder}"])


def _folder(out: Path, name: str, about: dict) -> Path:
    """`<out>/<name>`, numbered where that holds anything but an earlier answer of this network on this file."""
    for number in itertools.count(1):
        folder = out / (name if number == 1 else f"{name}-{number}")
        if not folder.exists():
            return folder
        try:
            report = read_json(folder / REPORT)
            if all(report[key] == about[key] for key in ("source", "checkpoint")):
                return folder
        except (OSError, ValueError, LookupError, TypeError):
            pass  # not one of ours
    raise AssertionError


def _unit(text: str) -> str:
    if text.casefold() not in UNITS_PER_MV:
        raise argparse.ArgumentTypeError(f"'{text}' is not mV, uV or V")
    return text


if __name__ == "__main__":
    main()
