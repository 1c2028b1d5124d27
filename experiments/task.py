"""What the flags ask of a network: the task, its records, and a checkpoint that is for them."""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from experiments.cli import CHECKPOINTS, Parser, boolean, positive_float, positive_int, run_name
from imlenet_jax.checkpoints.description import Meta
from imlenet_jax.checkpoints.reading import load_variables
from imlenet_jax.classifier import Classifier, load
from imlenet_jax.data.loader import Split, select, select_reference
from imlenet_jax.data.shards import Dataset
from imlenet_jax.data.tasks import PTBXL_TASKS, SUB, SUPERCLASS, Task
from imlenet_jax.errors import UserError
from imlenet_jax.models import MODELS, create_model, with_new_head
from imlenet_jax.training.seen import trained_on

CLEAN, REFERENCE = "clean", "reference"
LEAKS = (
    "--sub_split reference tests on the records that chose the best epoch, some of which trained the 5-class network: "
    "its scores flatter"
)
_FOLDS = {"training": "train_folds", "validation": "val_folds", "test": "test_folds"}


def add_task_flags(parser: Parser) -> None:
    """`--task`, `--sub` and `--sub_split`."""
    parser.add_argument(
        "--task",
        help=f"what is asked: of PTB-XL {', '.join(PTBXL_TASKS)}, of own recordings labels; the data's first unless given",
    )
    parser.add_argument("--sub", type=boolean, default=False, help=f"sub-diagnosis of MI: {', '.join(SUB.classes)}")
    parser.add_argument(
        "--sub_split",
        choices=(CLEAN, REFERENCE),
        default=CLEAN,
        help=f"records of --sub True: those of the folds, or the reference's whatever the folds; {REFERENCE} leaks",
    )


def check_task_flags(args: argparse.Namespace) -> None:
    """Refuse flags that do not go together."""
    if args.sub and args.task is not None:
        raise UserError("--sub True is a task of its own: leave --task out")
    if getattr(args, "sub_split", CLEAN) != CLEAN and not args.sub:  # not every command has it
        raise UserError(f"--sub_split {args.sub_split} is for the sub-diagnosis of MI: add --sub True")


def suffix(args: argparse.Namespace, usual: str = SUPERCLASS) -> str:
    """What is asked, by the flags or else `usual`, as it is added to the name of a run: nothing for the superclasses."""
    task = args.task or usual
    return "sub" if args.sub else "" if task == SUPERCLASS else task


def task_of(args: argparse.Namespace, dataset: Dataset) -> Task:
    """The task that the flags ask for; `UserError` where the data have none of that name."""
    return SUB if args.sub else dataset.task(args.task)


def choose_records(args: argparse.Namespace, dataset: Dataset, name: str) -> Split:
    """The `training`, `validation` or `test` records that the flags ask for."""
    if args.sub_split == REFERENCE:
        return select_reference(dataset, name, args.min_likelihood)
    return select(dataset, getattr(args, _FOLDS[name]), name, args.min_likelihood, task_of(args, dataset))


def add_network_flags(parser: Parser) -> None:
    """The flags that name a trained network without data; `load_network` takes them."""
    parser.add_argument("--model", default="imle_net", help=f"one of {', '.join(MODELS)}")
    parser.add_argument("--task", help="what the network was trained for, where its folder is named after that")
    parser.add_argument("--sub", type=boolean, default=False, help="use the network for the sub-diagnosis of MI")
    parser.add_argument(
        "--checkpoint_dir",
        type=Path,
        default=CHECKPOINTS,
        help="<model>/ lies below it; or a file of experiments.export",
    )
    parser.add_argument("--which", choices=("best", "latest"), default="best", help="which checkpoint")


def load_network(args: argparse.Namespace, precision: str | None = None) -> tuple[Path, Classifier]:
    """Where the network lies that these flags mean, and it; refuses one of another kind. An exported file says its own."""
    exported = args.checkpoint_dir.is_file()
    place = args.checkpoint_dir if exported else args.checkpoint_dir / run_name(args.model, asked=suffix(args))
    classifier = load(place, args.which, precision, args.compilation_cache)
    if not exported:
        check_kind(classifier.meta, args.model, SUB.name if args.sub else args.task or SUPERCLASS)
    return place, classifier


def check(meta: Meta, model: str, dataset: Dataset, task: Task) -> None:
    """Refuse a checkpoint that does not belong to the model, the task or the data."""
    check_kind(meta, model, task.name)
    check_shape(meta, dataset, ("classes", meta.classes, task.classes))


def check_shape(meta: Meta, dataset: Dataset, *more: tuple[str, Sequence[Any], Sequence[Any]]) -> None:
    """Refuse data whose records are of other leads, rate or length than a checkpoint's."""
    for name, ours, theirs in (
        *more,
        ("leads", meta.leads, dataset.leads),
        ("samples per second", [meta.sampling_rate], [dataset.sampling_rate]),
        ("samples per record", [meta.record_samples], [dataset.length]),
    ):
        if list(ours) != list(theirs):
            raise UserError(
                f"the checkpoint was trained on {name} {shortened([*map(str, ours)], 12)}, "
                f"but the data has {shortened([*map(str, theirs)], 12)}: choose another --data_dir or --checkpoint_dir"
            )


def check_kind(meta: Meta, model: str, task: str) -> None:
    """Refuse a checkpoint of another network or for another task."""
    if meta.model != model:
        raise UserError(f"the checkpoint is of {meta.model}, not {model}: change --model or --checkpoint_dir")
    if meta.task != task:
        raise UserError(
            f"the checkpoint is for the task '{meta.task}' ({shortened(meta.classes)}), not '{task}': "
            "change --task, --sub or --checkpoint_dir"
        )


def shortened(names: Sequence[str], most: int = 6) -> str:
    """The names with commas between, the first few of many."""
    return ", ".join(names[:most]) + f" and {len(names) - most} more" * (len(names) > most)


def add_base_flags(parser: Parser) -> None:
    """`--init_from`, `--freeze_epochs` and `--backbone_lr`."""
    parser.add_argument(
        "--init_from",
        type=Path,
        help="checkpoints of a trained network of this --model to start from, whatever its task",
    )
    parser.add_argument(
        "--freeze_epochs", type=positive_int, default=0, help="epochs in which only the last layer is trained, first"
    )
    parser.add_argument(
        "--backbone_lr",
        type=positive_float,
        default=1.0,
        help="what --lr is multiplied by for all before the last layer",
    )


def check_base_flags(args: argparse.Namespace) -> None:
    """Refuse flags that need, or exclude, a network to start from."""
    if args.sub and args.init_from:
        raise UserError("--sub True starts from the 5-class network in --checkpoint_dir: leave --init_from out")
    if (args.sub or args.init_from) and args.config:
        raise UserError("the constants are those of the network that training starts from: leave --config out")
    for flag, usual in (("freeze_epochs", 0), ("backbone_lr", 1.0)):
        if getattr(args, flag) != usual and not (args.sub or args.init_from):
            raise UserError(
                f"--{flag} is for a network that was trained before: give --init_from, too, or leave it out"
            )


def load_base(folder: Path, args: argparse.Namespace, dataset: Dataset, task: Task) -> tuple[Meta, dict[str, Any]]:
    """The trained network that training starts from; its last layer is kept for classes that it has, else drawn by `--seed`.

    Exclusive classes are weighed against each other: then the whole layer is drawn anew.

    Raises:
        UserError: there is none, it is of another network or for records of another shape, or it was trained on the
            folds that are validated or tested on.
    """
    if not folder.is_dir():
        flag = "--sub True starts from a trained 5-class network" if args.sub else f"--init_from {folder}"
        raise UserError(f"{flag}, and {folder} does not exist: train --model {args.model} first, or check the path")
    meta, variables = load_variables(folder)
    check_kind(meta, args.model, SUPERCLASS if args.sub else meta.task)
    check_shape(meta, dataset)
    numbers = _folds_that_trained(meta, dataset, {*args.val_folds, *args.test_folds})
    if numbers and args.sub_split == CLEAN:
        raise UserError(
            f"the network in {folder} was trained on fold {', '.join(map(str, numbers))}: "
            "choose other --val_folds and --test_folds"
        )
    network = create_model(meta.model, dataclasses.replace(meta.network_config, classes=len(task.classes)))
    both = [name for name in task.classes if name in meta.classes and not task.exclusive and not meta.asked.exclusive]
    kept = {task.classes.index(name): meta.classes.index(name) for name in both}
    return meta, with_new_head(network, variables, jax.random.key(args.seed), kept)


def _folds_that_trained(meta: Meta, dataset: Dataset, folds: set[int]) -> list[int]:
    """Which of these folds hold records that trained a network; those that it names where it does not know its records."""
    if meta.records is None:
        return sorted(set(meta.training.get("train_folds") or ()) & folds)
    return sorted(folds & set(dataset.fold[trained_on(meta, dataset)].tolist()))
