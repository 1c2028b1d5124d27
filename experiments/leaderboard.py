"""Train, test and compare networks: one command, a table at the end.

python -m experiments.leaderboard --data_dir data/ptb --models imle_net mousavi rajpurkar ecgnet resnet101 --seeds 3 --published

Seeds are trained one after the other: one program for all of them is slower (`benchmarks/results/seeds.json`).
"""

import argparse
import os
import re
import shlex
import signal
import sys
import warnings
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax

import experiments.train
from experiments.cli import Parser, boolean, check_folds, execute, positive_int, seed
from experiments.runs import Processes, Run
from experiments.task import check_base_flags, choose_records
from imlenet_jax.checkpoints.card import parameters
from imlenet_jax.checkpoints.description import Meta
from imlenet_jax.checkpoints.reading import read_meta, saved
from imlenet_jax.data.open import open_dataset
from imlenet_jax.errors import DataWarning, UserError
from imlenet_jax.evaluation.comparison import read_predictions
from imlenet_jax.evaluation.diagrams import draw_leaderboard, png
from imlenet_jax.evaluation.leaderboard import Contestant, Cost, Score, ranking, score
from imlenet_jax.evaluation.leaderboard_tables import (
    format_latex,
    format_leaderboard,
    format_markdown,
    leaderboard_frame,
)
from imlenet_jax.evaluation.published import PTBXL_RECORDS
from imlenet_jax.files import exclusive, write_atomically, write_json
from imlenet_jax.models import MODELS
from imlenet_jax.training.resume import command_to_continue, differing_flags

# Flags of train that a leaderboard sets itself, and those that all of its networks have in common.
SET = {
    *("help", "model", "task", "sub", "sub_split", "seed", "seeds", "checkpoint_dir", "log_dir", "resume", "loggr"),
    *("coordinator_address", "num_processes", "process_id", "heartbeat"),
}
FOLDS = ("train_folds", "val_folds", "test_folds")
COMMON = {"data_dir", "test_folds", "min_likelihood", "allow_missing"}
OWN = {"models", "tasks", "seeds", "seed", "resamples", "published", "out"}
DRAWS = 0  # seed of the bootstrap, as of `test` and `compare`
TEXT = "table.txt"
LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*", re.ASCII)


@dataclass(frozen=True)
class Network:
    """What an item of `--models` asks for: a label, a network's name, and flags of train that are its alone."""

    label: str
    model: str
    flags: dict[str, str]


def make_parser() -> Parser:
    """The flags."""
    parser = Parser(
        prog="python -m experiments.leaderboard", description="Train, test and compare networks in one table."
    )
    parser.add_argument(
        "--models",
        nargs="+",
        type=network,
        metavar="[LABEL=]MODEL",
        help="networks, with flags of their own where wanted: imle_net 'slow=imle_net --lr 0.0001'; all unless given",
    )
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help="what is asked; the data's first unless given")
    parser.add_argument("--seeds", type=positive_int, default=3, help="trainings of each network, from --seed on")
    parser.add_argument("--seed", type=seed, default=42, help="the first")
    parser.add_argument("--resamples", type=positive_int, default=2000, help="of the bootstrap over records")
    parser.add_argument(
        "--published", type=boolean, nargs="?", const=True, default=False, help="put the papers' figures beside ours"
    )
    parser.add_argument("--out", type=Path, default=Path("results/leaderboard"), help="folder for tables and runs")
    _add_training_flags(parser.add_argument_group("flags of experiments.train, with its defaults"), SET)
    return parser


def _add_training_flags(parser: Any, without: Collection[str]) -> None:
    """Those of train, as typed; only what was given is there after parsing, so that train's own defaults stay."""
    for action in experiments.train.make_parser()._actions:
        if action.dest not in without:
            shown = {"choices": action.choices, "metavar": action.metavar, "help": action.help}
            parser.add_argument(*action.option_strings, default=argparse.SUPPRESS, **shown)


def network(text: str) -> Network:
    """An item of `--models`: `imle_net`, `mine=imle_net` or `slow=imle_net --lr 0.0001`."""
    try:
        name, *words = shlex.split(text) or [""]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} lacks a quotation mark") from None
    label, _, model = name.rpartition("=")
    label = label or model
    if model not in MODELS or not LABEL.fullmatch(label):
        raise argparse.ArgumentTypeError(
            f"'{text}' is not [LABEL=]MODEL: a label is of letters, digits and ._+-, a model one of {', '.join(MODELS)}"
        )
    parser = Parser(prog="python -m experiments.leaderboard")
    _add_training_flags(parser, SET | COMMON)
    flags, rest = parser.parse_known_args(words)
    if rest:
        raise argparse.ArgumentTypeError(f"'{text}': {rest[0]} is no flag that a network can have of its own")
    return Network(label, model, _typed(flags))


def _typed(args: argparse.Namespace) -> dict[str, str]:
    """The flags of train among these."""
    return {f"--{name}": value for name, value in vars(args).items() if name not in OWN}


def main() -> None:
    """Parse the flags and run."""
    execute(make_parser(), run)


def run(args: argparse.Namespace) -> None:
    """Do what is missing, and show the table."""
    jax.config.update("jax_platforms", "cpu")  # of this process: an accelerator's memory is for the runs
    board = Board(args)
    args.out.mkdir(parents=True, exist_ok=True)
    taken = f"another leaderboard is writing to {args.out}: wait for its end, or choose another --out"
    with exclusive(args.out / ".leaderboard.lock", taken):
        failed = _do(board)
        print(f"\n{format_leaderboard(board.report())}\n\n{board.write()}")
    if failed:
        raise UserError(
            f"{len(failed)} of {len(board.runs)} runs failed, as is said above ({'; '.join(failed)}): mend that, and the "
            "same command does what is missing"
        )


def _do(board: "Board") -> list[str]:
    """Do the runs that are missing, and return those that failed. A signal ends the command, with status 75."""
    missing = [key for key in board.runs if not board.add(key)]
    board.write()
    failed = []
    with Processes() as start:
        for number, key in enumerate(missing, start=1):
            print(f"\nrun {number} of {len(missing)}: {key}", flush=True)
            status = os.EX_TEMPFAIL if start.stopped else start(board.runs[key].command())
            if status == 0 and board.add(key):
                print(board.write())
            elif start.stopped or status == os.EX_TEMPFAIL:
                command = shlex.join(command_to_continue("experiments.leaderboard", sys.argv[1:]))
                print(f"stopped and saved; the table so far: {board.out / TEXT}; to continue: {command}")
                sys.exit(os.EX_TEMPFAIL)
            else:
                ended = f", ended by {signal.Signals(-status).name}" if status < 0 else ""
                failed.append(f"{key}{ended}")
    return failed


class Key(NamedTuple):
    """A run of a leaderboard: whose, for what, and from which seed."""

    label: str
    task: str
    seed: int

    def __str__(self) -> str:
        return f"{self.label}, {self.task}, seed {self.seed}"


class Board:
    """The runs of a leaderboard, what is known of them, and its files.

    Args:
        args: of the command.

    Attributes:
        out: the folder.
        runs: all that are wanted, in the order in which they are done: every network once, then the next seed.

    Raises:
        UserError: a label is there twice, the data cannot be used, flags do not go together, or a folder holds a run with
            other flags: what a run would say in the night is said at once.
    """

    def __init__(self, args: argparse.Namespace):
        networks = args.models or [network(name) for name in MODELS]
        labels = [each.label for each in networks]
        if twice := [label for label in labels if labels.count(label) > 1]:
            raise UserError(f"--models has '{twice[0]}' twice: give one a label of its own, as in other={twice[0]}")
        self.out, self._args, self._networks = args.out, args, {each.label: each for each in networks}
        common = experiments.train.make_parser().parse_args([f"{flag}={value}" for flag, value in _typed(args).items()])
        self._dataset = open_dataset(common.data_dir, allow_missing=common.allow_missing)
        tasks = dict.fromkeys(self._dataset.task(name).name for name in args.tasks or [None])
        seeds = range(args.seed, args.seed + args.seeds)
        keys = [Key(label, task, seed) for seed in seeds for task in tasks for label in labels]
        self.runs = {key: self._run(key) for key in keys}
        self._metas: dict[tuple[str, str], Meta] = {}
        for key, run in self.runs.items():
            self._check(key, run)
        self._found: dict[Key, tuple[Score, Cost]] = {}
        if args.published and (reasons := self._not_comparable()):
            warnings.warn(f"not to be compared with published figures: {'; '.join(reasons)}", DataWarning, stacklevel=2)

    def _run(self, key: Key) -> Run:
        chosen = self._networks[key.label]
        own = {"--model": chosen.model, "--task": key.task, "--seed": str(key.seed)}
        return Run(self.out / key.label / f"seed{key.seed}", {**_typed(self._args), **chosen.flags, **own})

    def _check(self, key: Key, run: Run) -> None:
        """Refuse what the run would refuse, as far as this process can tell without JAX's devices."""
        args, dataset = run.args, self._dataset
        if key[:2] not in self._metas:
            check_base_flags(args)
            check_folds(train_folds=args.train_folds, val_folds=args.val_folds, test_folds=args.test_folds)
            train, _, _ = (choose_records(args, dataset, name) for name in ("training", "validation", "test"))
            base = read_meta(args.init_from)[1] if args.init_from else None
            self._metas[key[:2]] = experiments.train.describe(args, dataset, train, base)
        if saved(run.checkpoints):
            meta = self._metas[key[:2]]
            meta = replace(meta, training=meta.training | {"seed": key.seed})
            other = differing_flags(read_meta(run.checkpoints, "latest")[1], meta)
        else:
            other = run.differing(dataset.fingerprint)
        if other:
            raise UserError(
                f"{run.folder} holds a run with other flags ({'; '.join(other)}): give the same to continue it, or "
                "choose another --out or label"
            )

    def add(self, key: Key) -> bool:
        """Whether this run is finished; if so it is in the table from now on."""
        run = self.runs[key]
        if cost := run.finished(self._dataset.fingerprint):
            predictions = replace(read_predictions(run.predictions), name=str(key))
            self._found[key] = score(predictions, self._args.resamples, DRAWS), cost
        return key in self._found

    def report(self) -> dict[str, Any]:
        """All that is known, in JSON types."""
        dataset, networks = self._dataset, self._networks.values()
        settings = {"resamples": self._args.resamples, "seed": DRAWS}
        return {
            "data": {"source": dataset.source, "records": len(dataset), "fingerprint": dataset.fingerprint},
            "flags": self._flags(),
            "not_comparable": self._not_comparable(),
            "tasks": [
                ranking(task, [self._contestant(task, each) for each in networks], settings, self._args.published)
                for task in dict.fromkeys(key.task for key in self.runs)
            ],
        }

    def write(self) -> str:
        """Write the table in all its forms, and the figure; returns which files."""
        report = self.report()
        write_json(self.out / "table.json", report)
        for name, content in (
            (TEXT, format_leaderboard(report) + "\n"),
            ("table.csv", leaderboard_frame(report).to_csv(index=False)),
            ("table.md", format_markdown(report)),
            ("table.tex", format_latex(report)),
        ):
            write_atomically(self.out / name, content.encode())
        written = f"table: {self.out / TEXT}, .csv, .json, .md, .tex"
        if self._found:
            figure = draw_leaderboard(report, f"{report['data']['source']}, {len(self._dataset):,} records")
            write_atomically(self.out / "figure.png", png(figure))
            written += f"   figure: {self.out / 'figure.png'}"
        return written

    def _contestant(self, task: str, network: Network) -> Contestant:
        keys = [key for key in self.runs if key[:2] == (network.label, task)]
        found = [self._found[key] for key in keys if key in self._found]
        return Contestant(network.label, network.model, parameters(self._metas[network.label, task]), len(keys), found)

    def _not_comparable(self) -> list[str]:
        """Why published figures are of something else: not all of PTB-XL, or other folds."""
        dataset = self._dataset
        reasons = []
        if dataset.source != "PTB-XL" or len(dataset) < PTBXL_RECORDS:
            reasons.append(f"the data are {len(dataset):,} records ({dataset.source}), not PTB-XL's {PTBXL_RECORDS:,}")
        args, usual = (run.args for run in self.runs.values()), experiments.train.make_parser()
        if folds := {name for each in args for name in FOLDS if getattr(each, name) != usual.get_default(name)}:
            reasons.append(f"the folds are others (--{', --'.join(sorted(folds))})")
        if any(run.args.min_likelihood is not None for run in self.runs.values()):
            reasons.append("the labels are others (--min_likelihood)")
        if dataset.sampling_rate != 100:
            reasons.append(f"the records have {dataset.sampling_rate} Hz, not 100")
        return reasons

    def _flags(self) -> dict[str, str]:
        """What the networks were trained with beside train's defaults: all of them, and each."""
        unusual = {key.label: run.unusual for key, run in self.runs.items()}
        shared = [flag for flag in next(iter(unusual.values())) if all(flag in flags for flags in unusual.values())]
        own = {label: [flag for flag in flags if flag not in shared] for label, flags in unusual.items()}
        return {who: " ".join(flags) for who, flags in [("all", shared), *own.items()] if flags}


if __name__ == "__main__":
    main()
