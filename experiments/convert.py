"""Turn weights of an original network into one of our checkpoints.

python -m experiments.convert --model imle_net --weights imle_net_weights.h5 --out checkpoints/imle_net
"""

import dataclasses
from pathlib import Path

from experiments.cli import Parser, execute, number, positive_float
from imlenet_jax.checkpoints.card import write_card
from imlenet_jax.checkpoints.description import Meta
from imlenet_jax.data.open import open_dataset
from imlenet_jax.data.ptbxl import LEADS, SECONDS, SUPERCLASSES
from imlenet_jax.data.tasks import SUPERCLASS, Task
from imlenet_jax.errors import UserError
from imlenet_jax.interop import import_weights
from imlenet_jax.models import MODELS, entry, make_config
from imlenet_jax.training.api import cropped
from imlenet_jax.training.parallel import print_devices
from imlenet_jax.training.saving import Checkpoints

RATE = 100  # samples per second, of all the originals
# The scaler that the original ships for its published 5-class weights (data/standardization.bin), in mV.
SHIPPED_MEAN, SHIPPED_STD = -0.000825140242832062, 0.23221818381812617


def make_parser() -> Parser:
    """The flags."""
    parser = Parser(prog="python -m experiments.convert", description="Original weights to a checkpoint.")
    parser.add_argument("--model", required=True, help=f"one of {', '.join(MODELS)}")
    parser.add_argument("--weights", type=Path, required=True, help="keras .h5, torch .pt, or .npz by state-dict name")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint folder to write; must not hold any yet")
    parser.add_argument(
        "--crop",
        type=positive_float,
        metavar="SECONDS",
        help="that it was trained on at a time; whole records if not given",
    )
    parser.add_argument("--data_dir", help="data whose task it was trained for: they name its classes")
    parser.add_argument("--task", help="of these data; the superclasses unless given")
    parser.add_argument("--scaler_mean", type=number, default=SHIPPED_MEAN, help="mean of the training signals, mV")
    parser.add_argument("--scaler_std", type=positive_float, default=SHIPPED_STD, help="their standard deviation, mV")
    return parser


def main() -> None:
    """Parse the flags and run."""
    execute(make_parser(), run)


def run(args) -> None:
    """Convert."""
    entry(args.model)
    print_devices()
    if args.out.exists() and (not args.out.is_dir() or any(args.out.iterdir())):
        raise UserError(f"--out {args.out} exists and is not an empty folder; choose another")
    if args.task and not args.data_dir:
        raise UserError(f"--task {args.task} needs --data_dir, whose task it is: PTB-XL's folder, or shards of it")
    task = open_dataset(args.data_dir).task(args.task) if args.data_dir else Task(SUPERCLASS, SUPERCLASSES)
    length, samples = cropped(args.crop, SECONDS * RATE, RATE)
    config = make_config(args.model, {"length": length, "classes": len(task.classes)})
    imported = import_weights(args.model, args.weights, config)
    meta = Meta(
        model=args.model,
        config=dataclasses.asdict(config),
        classes=list(task.classes),
        leads=list(LEADS),
        sampling_rate=RATE,
        scaler={"mean": args.scaler_mean, "std": args.scaler_std},
        training={"converted_from": args.weights.name},
        task=task.name,
        samples=samples,
    )
    with Checkpoints(args.out) as checkpoints:
        checkpoints.save(meta, variables=imported.variables)
    write_card(args.out, meta)
    print(f"{len(imported.targets)} arrays of {args.weights} converted to {args.out}")


if __name__ == "__main__":
    main()
