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

from benchmarks.faithfulness_report import draw_curves, print_report
from experiments.cli import Parser, boolean, execute, folds, likelihood, positive_int, seed
from experiments.test import check
from imlenet_jax.classifier import Classifier, load
from imlenet_jax.data.loader import select
from imlenet_jax.data.open import SYNTHETIC, SYNTHETIC_FOLDER, open_dataset
from imlenet_jax.data.pathology import ANTEROSEPTAL, INFERIOR
from imlenet_jax.data.shards import Dataset
from imlenet_jax.errors import UserError
from imlenet_jax.evaluation.attention import attention_maps
from imlenet_jax.evaluation.faithfulness import (
    METHODS,
    area,
    cascade,
    curves,
    difference_interval,
    explain,
    mean_interval,
    part_scores,
    rank_correlation,
)
from imlenet_jax.evaluation.localisation import affected_leads, find_truth, lead_shares, moved_infarcts, read_truth
from imlenet_jax.evaluation.saliency import class_logits, explained_class, integrated_gradients
from imlenet_jax.files import write_json
from imlenet_jax.models import MODELS, entry
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
    parser.add_argument(
        "--checkpoint_dir", type=Path, default=Path("checkpoints"), help="<model>/ is looked for below it"
    )
    parser.add_argument("--test_folds", type=folds, default=(10,), help="folds whose records are explained")
    parser.add_argument(
        "--min_likelihood", type=likelihood, help="drop statements whose stated likelihood is below this"
    )
    parser.add_argument(
        "--allow_missing", type=boolean, default=False, help="go on without records whose files are missing"
    )
    parser.add_argument("--batchsize", type=positive_int, default=32, help="records per call of the compiled network")
    parser.add_argument("--which", choices=("best", "latest"), default="best", help="which checkpoint")
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, help="maps to judge; all that the network has by default"
    )
    parser.add_argument("--max_records", type=positive_int, default=100, help="of each kind; more are sampled down")
    parser.add_argument("--steps", type=positive_int, default=32, help="of integrated gradients")
    parser.add_argument("--seed", type=seed, default=0, help="of the sample, the random maps and the re-drawn weights")
    parser.add_argument("--out", type=Path, default=Path("results/faithfulness"), help="JSON and figure go there")
    execute(parser, run)


def run(args: argparse.Namespace) -> None:
    """Measure, print, write."""
    entry(args.model)
    print_devices()
    classifier = load(args.checkpoint_dir / args.model, args.which)
    dataset = open_dataset(args.data_dir, classifier.sampling_rate, args.allow_missing)
    check(classifier.meta, args.model, dataset)
    study = Study(classifier, dataset, args)
    results = study.about() | study.curves() | study.sanity()
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
        possible = METHODS if args.model == "imle_net" else METHODS[1:]
        self.methods = args.methods or possible
        if not set(self.methods) <= set(possible):
            raise UserError(f"{args.model} has no attention: leave it out of --methods")
        self.split = select(dataset, args.test_folds, "test", args.min_likelihood)
        self.rows = self.sample(self.split.rows)
        self.signals = dataset.millivolts(self.rows)
        self.target = explained_class(classifier.logits, self.signals, None, args.batchsize)

    def about(self) -> Entry:
        """What was measured, and on what."""
        args, meta = self.args, self.classifier.meta
        return {
            "model": meta.model,
            "config": meta.config,
            "epoch": meta.epoch,
            "data_fingerprint": self.dataset.fingerprint,
            "test_folds": list(args.test_folds),
            "records": len(self.rows),
            "of_records": len(self.split),
            "seed": args.seed,
            "integrated_gradients_steps": args.steps,
            "random_maps": RANDOM_MAPS,
            "redraws": REDRAWS,
            "baseline": "each lead's median over the record",
            "explained": "the most probable class of each record",
        }

    def curves(self) -> Entry:
        """Deletion and insertion by leads and by windows, their areas, and the areas' differences."""
        windows = self.windows
        grids = {"leads": (1, len(self.dataset.leads)), "windows": (windows, WINDOW_STEPS)}
        scores = {name: {grid: part_scores(maps, w) for grid, (w, _) in grids.items()} for name, maps in self.maps()}
        results: Entry = {}
        for grid, (w, steps) in grids.items():
            rng = np.random.default_rng([self.args.seed, w])
            ranked = {name: [by_grid[grid]] for name, by_grid in scores.items()}
            ranked["random"] = [rng.random((len(self.rows), len(self.dataset.leads), w)) for _ in range(RANDOM_MAPS)]
            results[grid] = self._compare(ranked, steps)
        return {"curves": results, "completeness": self._completeness()}

    def _compare(self, ranked: dict[str, list], steps: int) -> Entry:
        results: Entry = {}
        areas: dict[str, Any] = {}
        for name, draws in ranked.items():
            print(f"deleting and inserting by {name}")
            found = [
                curves(self.classifier.logits, self.signals, scores, self.target, steps, self.args.batchsize)
                for scores in draws
            ]
            results[name] = {}
            areas[name] = {}
            for kind in ("deletion", "insertion"):
                curve = np.mean([getattr(draw, kind) for draw in found], axis=0)
                areas[name][kind] = area(curve)
                results[name][kind] = {"curve": curve.mean(axis=0).tolist(), "area": mean_interval(areas[name][kind])}
        for name, kinds in areas.items():
            for kind, values in kinds.items():
                results[name][kind]["less"] = {
                    other: mean_interval(values - areas[other][kind])
                    for other in ("random", "integrated_gradients")
                    if other in areas and other != name
                }
        return results

    def _completeness(self) -> Entry:
        """How far the sums of integrated gradients are from what they must be, in logits."""
        logits, batchsize = self.classifier.logits, self.args.batchsize
        chosen, target = self.signals[:SANITY_RECORDS], self.target[:SANITY_RECORDS]
        sums = integrated_gradients(logits, chosen, target, self.args.steps, batchsize).sum(axis=(1, 2), dtype=float)
        flat = np.broadcast_to(np.median(chosen, axis=1, keepdims=True), chosen.shape)
        ends = [class_logits(logits, x, batchsize)[np.arange(len(x)), target] for x in (chosen, flat)]
        gap = np.abs(sums - (ends[0] - ends[1]))
        return {
            "records": len(chosen),
            "median_gap": float(np.median(gap)),
            "median_change": float(np.median(np.abs(ends[0] - ends[1]))),
        }

    def sanity(self) -> Entry:
        """Rank correlation of the maps with those of the network whose weights are re-drawn in a cascade."""
        signals, target = self.signals[:SANITY_RECORDS], self.target[:SANITY_RECORDS]
        trained = dict(self._sanity_maps(self.classifier, signals, target))
        found: dict[str, dict[str, list]] = {name: {} for name in trained}
        for draw in range(REDRAWS):
            for level, changed in cascade(self.classifier, self.args.seed + draw):
                print(f"re-drawn from the output to {level}, draw {draw + 1} of {REDRAWS}")
                for name, maps in self._sanity_maps(changed, signals, target):
                    found[name].setdefault(level, []).append(rank_correlation(trained[name], maps))
        means = {
            name: {level: mean_interval(np.mean(draws, axis=0)) for level, draws in levels.items()}
            for name, levels in found.items()
        }
        return {"sanity": means}

    def _sanity_maps(
        self, classifier: Classifier, signals: np.ndarray, target: np.ndarray
    ) -> Iterator[tuple[str, np.ndarray]]:
        for method in self.methods:
            if method == "amplitude":  # knows no weights
                continue
            yield method, part_scores(self._explain(method, classifier, signals, target), self.windows)
        if "attention" in self.methods:
            levels = attention_maps(classifier, signals, self.args.batchsize)
            yield from ((f"attention: {name}", getattr(levels, name)) for name in ("beat", "rhythm", "channel"))

    def localisation(self, path: Path) -> Entry:
        """The share of the maps on the leads that show a statement's signs; the class explained is the statement's."""
        truth, results = read_truth(path), {}
        rows, ids = self.split.rows, self.split.ecg_id
        for statement in sorted(
            set().union(*(self.dataset.scp_codes[row] for row in rows)) & set(self.dataset.statements)
        ):
            masks = affected_leads(truth, ids, self.dataset.leads, statement)
            shown = np.flatnonzero(masks[statement].any(axis=1))
            if not len(shown):
                continue
            print(f"localising {statement}")
            chosen = self.sample(shown)
            shares = self._shares(self.dataset.millivolts(rows[chosen]), self._class_of(statement))
            for name, mask in masks.items():
                results[name] = _localised(mask[chosen], shares)
        return {"localisation": results}

    def moved_infarct(self) -> Entry:
        """Lead shares of the same synthetic hearts with an anterior and an inferior infarction."""
        print("moving infarctions")
        both = [self._shares(x, self._class_of("ASMI")) for x in moved_infarcts(self.args.max_records, self.args.seed)]
        return {"moved_infarct": {"pairs": self.args.max_records, "methods": self._contrast(*both, paired=True)}}

    def infarctions(self) -> Entry:
        """Lead shares of records with an anteroseptal against those with an inferior infarction."""
        codes = [self._codes(row) for row in self.split.rows]
        kinds = (("ASMI", "IMI"), ("IMI", "ASMI"))
        rows = [self.split.rows[[has in c and no not in c for c in codes]] for has, no in kinds]
        if min(map(len, rows)) < 2:
            print("fewer than two records of ASMI or of IMI: their lead weights are not compared")
            return {}
        rows = [self.sample(part) for part in rows]
        both = [self._shares(self.dataset.millivolts(part), self._class_of("ASMI")) for part in rows]
        least = self.args.min_likelihood
        selection = (
            f"records of fold {', '.join(map(str, self.args.test_folds))} whose scp_codes hold ASMI and not IMI "
            f"({len(rows[0])}), against IMI and not ASMI ({len(rows[1])}), "
            + ("of any likelihood" if least is None else f"of a likelihood of 0 (not stated) or at least {least:g}")
            + f"; at most {self.args.max_records} of each, drawn with seed {self.args.seed}"
        )
        return {"asmi_against_imi": {"selection": selection, "methods": self._contrast(*both, paired=False)}}

    def _contrast(self, anterior: dict[str, np.ndarray], inferior: dict[str, np.ndarray], paired: bool) -> Entry:
        results: Entry = {}
        leads = self.dataset.leads
        groups = {"V1-V4": ANTEROSEPTAL, "II, III, aVF": INFERIOR} | {lead: (lead,) for lead in leads}
        for method in anterior:
            results[method] = {}
            for name, group in groups.items():
                a, b = (shares[method][:, np.isin(leads, group)].sum(axis=1) for shares in (anterior, inferior))
                difference = mean_interval(a - b) if paired else difference_interval(a, b)
                results[method][name] = {
                    "anterior": mean_interval(a),
                    "inferior": mean_interval(b),
                    "difference": difference,
                }
        return results

    @property
    def windows(self) -> int:
        """Half-seconds in a record."""
        return max(1, 2 * self.dataset.length // self.dataset.sampling_rate)

    def maps(self) -> Iterator[tuple[str, np.ndarray]]:
        """The maps of each method for the sampled records."""
        for method in self.methods:
            print(f"explaining by {method}")
            yield method, self._explain(method, self.classifier, self.signals, self.target)

    def sample(self, rows: np.ndarray) -> np.ndarray:
        """At most `--max_records` of `rows`, drawn with the seed, in their order."""
        if len(rows) <= self.args.max_records:
            return rows
        return np.sort(np.random.default_rng(self.args.seed).choice(rows, self.args.max_records, replace=False))

    def _explain(self, method: str, classifier: Classifier, signals: np.ndarray, target: np.ndarray) -> np.ndarray:
        return explain(method, classifier, signals, target, self.args.steps, self.args.batchsize)

    def _shares(self, signals: np.ndarray, target: int) -> dict[str, np.ndarray]:
        targets = np.full(len(signals), target, np.int32)
        return {
            method: lead_shares(self._explain(method, self.classifier, signals, targets)) for method in self.methods
        }

    def _class_of(self, statement: str) -> int:
        return self.dataset.classes.index(self.dataset.statements[statement])

    def _codes(self, row: int) -> set[str]:
        least = self.args.min_likelihood or 0
        return {code for code, stated in self.dataset.scp_codes[row].items() if stated == 0 or stated >= least}


def _localised(mask: np.ndarray, shares: dict[str, np.ndarray]) -> Entry:
    shown = mask.any(axis=1)
    chance = mask[shown].mean(axis=1)
    found = {method: (values * mask)[shown].sum(axis=1) for method, values in shares.items()}
    return {
        "records": int(shown.sum()),
        "chance": float(chance.mean()) if shown.any() else None,
        "methods": {
            method: {"share": mean_interval(values), "less_chance": mean_interval(values - chance)}
            for method, values in found.items()
        },
    }


if __name__ == "__main__":
    main()
