"""Do pictures of where a network looked mean anything? Attention and gradients against random maps, and against the truth.

    python -m benchmarks.faithfulness --model imle_net --data_dir D [--max_records 100] [--out results/faithfulness]

On the test folds of D: deletion and insertion curves, by whole leads and by half-seconds; maps of the network with
re-drawn weights; on synthetic data, maps against the leads that show the disease, and an infarction moved in the same heart;
lead weights of anterior against inferior infarctions. All intervals are 95 % bootstraps over records.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.parts.faithfulness_report import draw_curves, print_report
from benchmarks.parts.machine import machine
from experiments.cli import CHECKPOINTS, Parser, add_cache_flag, boolean, execute, folds, likelihood, positive_int, seed
from experiments.task import check
from imlenet_jax.classifier import Classifier, load
from imlenet_jax.data.loader import select
from imlenet_jax.data.open import SYNTHETIC, SYNTHETIC_FOLDER, open_dataset
from imlenet_jax.data.shards import Dataset
from imlenet_jax.errors import UserError
from imlenet_jax.explanation.attention import attention_maps
from imlenet_jax.explanation.faithfulness import (
    METHODS,
    cascade,
    compare,
    explain,
    mean_interval,
    part_scores,
    rank_correlation,
)
from imlenet_jax.explanation.localisation import (
    affected_leads,
    contrast,
    find_truth,
    lead_shares,
    localised,
    moved_infarcts,
    read_truth,
)
from imlenet_jax.explanation.saliency import baseline, class_logits, explained_class
from imlenet_jax.files import write_json
from imlenet_jax.models import MODELS, entry
from imlenet_jax.runtime.compilation import use_cache
from imlenet_jax.training.parallel import print_devices

WINDOW_STEPS = 20  # of deletion by windows: 12 of the 240 at a time
RANDOM_MAPS = 5  # per record; areas are averaged over them
REDRAWS = 3  # of the cascade's weights; correlations are averaged over them
SANITY_RECORDS = 32
Entry = dict[str, Any]


def main() -> None:
    """Parse the flags and run."""
    parser = Parser(
        prog="python -m benchmarks.faithfulness", description="Do maps of where a network looked mean anything?"
    )
    parser.add_argument("--model", default="imle_net", help=f"one of {', '.join(MODELS)}")
    parser.add_argument("--data_dir", default="data/ptb", help="PTB-XL folder, shards, or 'synthetic'")
    parser.add_argument("--checkpoint_dir", type=Path, default=CHECKPOINTS, help="<model>/ is looked for below it")
    parser.add_argument("--test_folds", type=folds, default=(10,), help="folds whose records are explained")
    parser.add_argument(
        "--min_likelihood", type=likelihood, help="drop statements whose stated likelihood is below this"
    )
    parser.add_argument(
        "--allow_missing", type=boolean, default=False, help="go on without records whose files are missing"
    )
    parser.add_argument("--batchsize", type=positive_int, default=16, help="records per call of the compiled network")
    parser.add_argument("--which", choices=("best", "latest"), default="best", help="which checkpoint")
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, help="maps to judge; all that the network has by default"
    )
    parser.add_argument("--max_records", type=positive_int, default=100, help="of each kind; more are sampled down")
    parser.add_argument("--steps", type=positive_int, default=32, help="of integrated gradients")
    parser.add_argument("--seed", type=seed, default=0, help="of the sample, the random maps and the re-drawn weights")
    parser.add_argument("--out", type=Path, default=Path("results/faithfulness"), help="JSON and figure go there")
    add_cache_flag(parser)
    execute(parser, run)


def run(args: argparse.Namespace) -> None:
    """Measure, print, write."""
    entry(args.model)
    try:
        args.out.mkdir(parents=True, exist_ok=True)  # before the work, so that a mistake costs none
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"--out {args.out} is a file, or below one: name a folder") from None
    print_devices()
    use_cache(args.compilation_cache)
    classifier = load(args.checkpoint_dir / args.model, args.which)
    dataset = open_dataset(args.data_dir, classifier.sampling_rate, args.allow_missing)
    check(classifier.meta, args.model, dataset, dataset.task())
    seen = sorted(set(args.test_folds) & set(classifier.meta.training.get("train_folds") or ()))
    if seen:
        print(f"note: records of fold {', '.join(map(str, seen))} trained this network")
    study = Study(classifier, dataset, args)
    results = study.about() | study.curves() | study.completeness() | study.sanity()
    truth = find_truth(SYNTHETIC_FOLDER if str(args.data_dir) == SYNTHETIC else Path(args.data_dir))
    if not truth:
        print("no truth.json with the data: maps are not compared with affected leads")
    else:
        results |= study.localisation(truth) | study.moved_infarct()
    results |= study.infarctions()
    print_report(results)
    path = args.out / f"{args.model}.json"
    write_json(path, results)
    draw_curves(results, path.with_suffix(".png"))
    print(f"written: {path} and {path.with_suffix('.png')}")


class Study:
    """The measurements, each a dictionary for JSON. Records are those of the test folds."""

    def __init__(self, classifier: Classifier, dataset: Dataset, args: argparse.Namespace):
        self.classifier, self.dataset, self.args = classifier, dataset, args
        self.methods = args.methods or (METHODS if args.model == "imle_net" else METHODS[1:])
        if "attention" in self.methods and args.model != "imle_net":
            raise UserError(f"{args.model} has no attention: leave it out of --methods")
        self.batchsize = min(args.batchsize, args.max_records)
        self.windows = max(1, 2 * dataset.length // dataset.sampling_rate)  # half-seconds
        self.split = select(dataset, args.test_folds, "test", args.min_likelihood)
        self.rows = self.sample(self.split.rows)
        self.signals = dataset.millivolts(self.rows)
        self.target = explained_class(classifier.logits, self.signals, None, self.batchsize)

    def about(self) -> Entry:
        """What is measured, and on what."""
        args, meta = self.args, self.classifier.meta
        return machine("benchmarks.faithfulness") | {
            "model": meta.model,
            "config": meta.config,
            "epoch": meta.epoch,
            "trained_on_folds": meta.training.get("train_folds"),
            "data": self.dataset.source,
            "data_fingerprint": self.dataset.fingerprint,
            "test_folds": list(args.test_folds),
            "records": len(self.rows),
            "of_records": len(self.split),
            "sanity_records": len(self.signals[:SANITY_RECORDS]),
            "seed": args.seed,
            "integrated_gradients_steps": args.steps,
            "random_maps": RANDOM_MAPS,
            "redraws": REDRAWS,
            "baseline": "each lead's median over the record",
            "explained": "the most probable class of each record",
            "explained_records": {name: int((self.target == i).sum()) for i, name in enumerate(meta.classes)},
        }

    def curves(self) -> Entry:
        """Deletion and insertion by leads and by windows."""
        leads = len(self.dataset.leads)
        grids = {"leads": (1, leads), "windows": (self.windows, WINDOW_STEPS)}
        scores: dict[str, dict[str, list]] = {grid: {} for grid in grids}
        for method in self.methods:
            print(f"explaining by {method}")
            maps = self.explain(method, self.classifier, self.signals, self.target)
            for grid, (windows, _) in grids.items():
                scores[grid][method] = [part_scores(maps, windows)]
        results = {}
        for grid, (windows, steps) in grids.items():
            print(f"deleting and inserting by {grid}")
            rng = np.random.default_rng([self.args.seed, windows])
            scores[grid]["random"] = [rng.random((len(self.rows), leads, windows)) for _ in range(RANDOM_MAPS)]
            logits = self.classifier.logits
            results[grid] = compare(logits, self.signals, scores[grid], self.target, steps, self.batchsize)
        return {"curves": results}

    def completeness(self) -> Entry:
        """How far the sums of integrated gradients are from what they must be, in logits."""
        if "integrated_gradients" not in self.methods:
            return {}
        x, target = self.signals[:SANITY_RECORDS], self.target[:SANITY_RECORDS]
        sums = self.explain("integrated_gradients", self.classifier, x, target).sum(axis=(1, 2), dtype=float)
        flat = np.broadcast_to(baseline(x), x.shape)
        logits = (class_logits(self.classifier.logits, each, self.batchsize) for each in (x, flat))
        ends = [values[np.arange(len(x)), target] for values in logits]
        gap, change = np.abs(sums - (ends[0] - ends[1])), np.abs(ends[0] - ends[1])
        return {"completeness": {"median_gap": float(np.median(gap)), "median_change": float(np.median(change))}}

    def sanity(self) -> Entry:
        """Rank correlation of the maps with those of the network whose weights are re-drawn in a cascade."""
        trained = dict(self.sanity_maps(self.classifier))
        found: dict[str, dict[str, list]] = {name: {} for name in trained}
        for draw in range(REDRAWS if trained else 0):
            for level, changed in cascade(self.classifier, self.args.seed + draw):
                print(f"re-drawn from the output to {level}, draw {draw + 1} of {REDRAWS}")
                for name, maps in self.sanity_maps(changed):
                    found[name].setdefault(level, []).append(rank_correlation(trained[name], maps))
        return {
            "sanity": {
                name: {level: mean_interval(np.mean(draws, axis=0)) for level, draws in levels.items()}
                for name, levels in found.items()
            }
        }

    def sanity_maps(self, classifier: Classifier) -> Iterator[tuple[str, np.ndarray]]:
        """The scores of half-seconds by each method that knows the weights, and each level of attention by itself."""
        x, target = self.signals[:SANITY_RECORDS], self.target[:SANITY_RECORDS]
        for method in self.methods:
            if method != "amplitude":
                yield method, part_scores(self.explain(method, classifier, x, target), self.windows)
        if "attention" in self.methods:
            levels = attention_maps(classifier, x, self.batchsize)
            yield from ((f"attention: {name}", getattr(levels, name)) for name in ("beat", "rhythm", "channel"))

    def localisation(self, path: Path) -> Entry:
        """The share of the maps on the leads that show a statement's signs; the class explained is the statement's."""
        truth, results = read_truth(path), {}
        present = {code for row in self.split.rows for code in self.dataset.scp_codes[row]}
        for statement in sorted(present & set(self.dataset.task().statements)):
            masks = affected_leads(truth, self.split.ecg_id, self.dataset.leads, statement)
            shown = np.flatnonzero(masks[statement].any(axis=1))
            if len(shown):
                print(f"localising {statement}")
                chosen = self.sample(shown)
                shares = self.shares(self.dataset.millivolts(self.split.rows[chosen]), statement)
                results |= {name: localised(mask[chosen], shares) for name, mask in masks.items()}
        return {"localisation": results}

    def moved_infarct(self) -> Entry:
        """Lead shares of the same synthetic hearts with an anterior and with an inferior infarction."""
        print("moving infarctions")
        pairs = self.args.max_records
        both = [self.shares(signals, "ASMI") for signals in moved_infarcts(pairs, self.args.seed)]
        return {"moved_infarct": {"pairs": pairs, "methods": contrast(*both, self.dataset.leads, paired=True)}}

    def infarctions(self) -> Entry:
        """Lead shares of records with an anteroseptal against those with an inferior infarction."""
        least = self.args.min_likelihood or 0
        held = [
            {code for code, stated in self.dataset.scp_codes[row].items() if stated == 0 or stated >= least}
            for row in self.split.rows
        ]
        found = [
            self.split.rows[[has in codes and hasnt not in codes for codes in held]]
            for has, hasnt in (("ASMI", "IMI"), ("IMI", "ASMI"))
        ]
        if min(map(len, found)) < 2:
            print("fewer than two records of ASMI or of IMI: their lead shares are not compared")
            return {}
        print("comparing ASMI with IMI")
        rows = [self.sample(each) for each in found]
        both = [self.shares(self.dataset.millivolts(each), "ASMI") for each in rows]
        sizes = [f"{len(chosen)} of {len(each)} records" for chosen, each in zip(rows, found, strict=True)]
        selection = (
            f"fold {', '.join(map(str, self.args.test_folds))}, scp_codes with ASMI and without IMI (anterior, {sizes[0]}), "
            f"with IMI and without ASMI (inferior, {sizes[1]}), likelihood "
            + (f"0 (not stated) or at least {least:g}" if least else "of any size")
            + f"; seed {self.args.seed}; the class explained is MI"
        )
        methods = contrast(*both, self.dataset.leads, paired=False)
        return {"asmi_against_imi": {"selection": selection, "methods": methods}}

    def sample(self, rows: np.ndarray) -> np.ndarray:
        """At most `--max_records` of `rows`, drawn with the seed, in their order."""
        if len(rows) <= self.args.max_records:
            return rows
        return np.sort(np.random.default_rng(self.args.seed).choice(rows, self.args.max_records, replace=False))

    def explain(self, method: str, classifier: Classifier, signals: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Maps with the steps that the flags say, in batches of one size: a smaller one would be compiled anew."""
        rows = np.minimum(np.arange(max(len(signals), self.batchsize)), len(signals) - 1)
        maps = explain(method, classifier, signals[rows], target[rows], self.args.steps, self.batchsize)
        return maps[: len(signals)]

    def shares(self, signals: np.ndarray, statement: str) -> dict[str, np.ndarray]:
        """Each method's lead shares where the class explained is that of `statement`."""
        task = self.dataset.task()
        number = task.classes.index(task.statements[statement])
        target = np.full(len(signals), number, np.int32)
        return {name: lead_shares(self.explain(name, self.classifier, signals, target)) for name in self.methods}


if __name__ == "__main__":
    main()
