"""Writes benchmarks/README.md: how to measure, and the tables of the results that are committed; and records/README.md.

python -m benchmarks.readme
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.compiled import compiled_page
from benchmarks.parts.device_report import device_report
from benchmarks.parts.figures import check_matplotlib, draw_least_times
from benchmarks.parts.speedrun import records_page
from benchmarks.parts.tables import markdown, milliseconds, throughput_tables
from benchmarks.scaling import format_table
from experiments.cli import Parser, execute
from imlenet_jax.errors import UserError
from imlenet_jax.files import write_atomically

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"
RECORDS = FOLDER / "records"

HEAD = """# Benchmarks

Made by `python -m benchmarks.readme` from the files in `results/`; change those, not this page.

## How to measure

```
python -m benchmarks.throughput --models all --batchsize 32 --out benchmarks/results
python -m benchmarks.parity --golden DIR --out benchmarks/results/parity.json
python -m benchmarks.input_pipeline --data_dir DIR --out benchmarks/results/input_pipeline.json
python -m benchmarks.latency --out benchmarks/results/latency.json
python -m benchmarks.scaling --out benchmarks/results
python -m benchmarks.precision --out benchmarks/results/precision.json
python -m benchmarks.seeds --out benchmarks/results/seeds.json
python -m benchmarks.time_to_auc --model mousavi --target 0.80 --epochs 10 --out benchmarks/records
python -m benchmarks.device --golden DIR --reference original --out results/device
.accelerators/cuda/bin/python -m benchmarks.compiled --out results/compiled
```

`--golden DIR` holds what the originals compute: `inputs.npz` (16 standardised records with labels) and, for each network, its weights and
`<model>.npz` with the outputs. The outputs of xresnet1d101 and s4 lie in `golden/`, and `originals.py` makes them anew. Those of the other five are
not in the repository (they are large): make them from the code of likith012/IMLE-Net in the layout that `parity.py` describes at its head.

`device` is for a GPU or TPU that is there for a few minutes: the most valuable comes first, each result is written at
once, and what does not fit is left out. XLA's own options go by `XLA_FLAGS`, which the results keep: with
`XLA_FLAGS=--xla_gpu_enable_command_buffer=+WHILE`, for one, loops become part of command buffers. `compiled` is for one
that is not there: it compiles the steps for it and counts bytes, kernels, memory and messages between devices. It
measures no speed, and needs compilers: `make accelerators` (some 3 GB; for `--target v5e` they are in `.accelerators/tpu`). `--against FILE` prints what changed since an earlier `compiled.json`.

Both write `device.json` or `compiled.json`: copied to `results/device_<what>.json` or `results/compiled_<what>.json`, they are part of this page.

`time_to_auc` trains several networks to a validation AUC, against the clock; `records/README.md` has the rules and the records.
`results/leaderboard` has the runs behind the table of `docs/results.md`. What has no table here (`host`, `start`, `faults`, `fuzz`, `bad_input`,
`faithfulness`, `resampling`, `runtimes`, `recordings`, `linear`) prints its own result; most are told in `docs/`.

`throughput` takes the machine to be otherwise idle. With `--reference` it times the original networks beside ours, the
two taking turns on the same batch. They need an interpreter of their own:

```
git clone https://github.com/likith012/IMLE-Net original
python -m venv original-env
original-env/bin/pip install tensorflow-cpu tf_keras torch
python -m benchmarks.throughput --reference original --reference_python original-env/bin/python
```

What is timed of the originals is what `fit` and `predict` call for each batch (tf_keras, with the optimizer, the loss
and the metrics that they compile), and the steps of `torch_train.py`; inference in torch without recording gradients.
"""


def main() -> None:
    """Parse the flags and run."""
    parser = Parser(prog="python -m benchmarks.readme", description="Write benchmarks/README.md from the results.")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of JSON files")
    parser.add_argument("--out", type=Path, default=FOLDER / "README.md", help="the page")
    parser.add_argument("--records", type=Path, default=RECORDS, help="folder of records, whose page is written there")
    execute(parser, run)


def run(args: argparse.Namespace) -> None:
    """Write both pages, and the figure of the programs before and after."""
    check_matplotlib()
    pages = {args.out: page(args.results), args.records / "README.md": records_page(args.records)}
    for path, text in pages.items():
        write_atomically(path, text.encode())
        print(f"written: {path}")
    for before in args.results.glob("compiled_*_before.json"):
        now = before.with_name(before.name.replace("_before", ""))
        if not now.is_file():
            continue
        draw_least_times(*(json.loads(path.read_bytes())["rows"] for path in (now, before)), now.with_suffix(".png"))
        print(f"written: {now.with_suffix('.png')}")


def page(results: Path) -> str:
    """The whole page; a file of results whose kind is not known is left out."""
    sections = [HEAD]
    for prefix, title, section in SECTIONS:
        for path in sorted(results.glob(f"{prefix}*.json")):
            try:
                sections.append(f"## {title} (`{path.name}`)\n\n{section(json.loads(path.read_bytes()))}")
            except (ValueError, KeyError, TypeError, AttributeError):
                raise UserError(f"{path} is no result of benchmarks.{prefix}: make it again") from None
    return "\n".join(sections)


def parity_table(results: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Errors against the originals' stored outputs, beside their bounds."""
    machine = results["machine"]
    networks = {model: rows for model, rows in results.items() if model not in ("machine", "default_precision")}
    table = markdown(
        ("network", "compared", "error", "bound"),
        (
            (f"`{model}`", name, f"{row['error']:.1e}", "shown only" if row["bound"] is None else f"{row['bound']:.2g}")
            for model, rows in networks.items()
            for name, row in rows.items()
        ),
    )
    return f"{measured(machine)}\n{table}"


def input_table(results: dict[str, Any]) -> str:
    """Rates of the input pipeline."""
    machine = results["machine"]
    rates = {f"prepare, {count} workers": rate for count, rate in results["prepare_records_per_s"].items()}
    names = {
        "loader, first epoch, cold shards": "loader_cold",
        "loader, first epoch, warm shards": "loader_first_epoch",
        "loader, later epochs": "loader",
        "loader, later epochs, to the device": "loader_to_device",
        "from memory to the device": "host_to_device",
        "copying the same batches": "memcpy",
        "`wfdb.rdsamp`": "rdsamp",
    }
    rates |= {label: results.get(f"{name}_records_per_s") for label, name in names.items()}
    table = markdown(("", "records/s"), ((name, f"{rate:,.0f}") for name, rate in rates.items() if rate))
    return f"{machine['date'][:10]}, {machine['cores']} cores, load {machine['load']}.\n\n{table}"


def latency_table(results: dict[str, Any]) -> str:
    """What one record waits for."""
    rows = results["rows"]
    table = markdown(
        (
            "network",
            "`predict_proba`, ms (quartiles)",
            "compiled step alone, ms (quartiles)",
            "ratio",
            "load to answer, s",
        ),
        (
            (
                f"`{row['model']}`",
                milliseconds(row["predict_s"]),
                milliseconds(row["step_s"]),
                f"{row['ratio']:.2f}",
                f"{row['load_to_answer_s']:.1f}",
            )
            for row in rows
        ),
    )
    text = (
        "One record, from numpy in mV to probabilities; the two take turns. Loading is in a fresh process, imports and "
        "compilation included, with the checkpoint in the page cache."
    )
    return f"{measured(results['machine'])}\n{text}\n\n{table}"


def precision_table(results: dict[str, Any]) -> str:
    """Macro AUC by data type and seed, and the mean difference."""
    difference, runs = results["difference"], results["runs"]
    table = markdown(
        ("seed", *(f"macro AUC, {dtype}" for dtype in runs)),
        zip(map(str, results["seeds"]), *([f"{auc:.4f}" for auc in areas] for areas in runs.values()), strict=True),
    )
    return (
        f"{measured(results['machine'])}\n`{results['model']}` with `{json.dumps(results['config'])}`, "
        f"{results['train_records']:,} records of {results['data']} to train on, {results['test_records']} to test on, "
        f"{results['epochs']} epochs:\n\n{table}\nbfloat16 less float32: mean {difference['mean']:+.4f}, 95 % interval "
        f"[{difference['low']:+.4f}, {difference['high']:+.4f}] over {difference['n']} seeds; between seeds, float32's own "
        f"standard deviation is {results['float32_std']:.4f}.\n"
    )


def seeds_table(results: dict[str, Any]) -> str:
    """A step of several seeds' networks, in turn and in one program."""
    table = markdown(
        ("network", "in turn, ms", "in one program, ms", "ratio"),
        (
            (
                f"`{row['model']}`",
                f"{1000 * row['in_turn_s']:,.1f}",
                f"{1000 * row['together_s']:,.1f}",
                f"{row['ratio']:.2f}",
            )
            for row in results["rows"]
        ),
    )
    constants = f" with `{json.dumps(results['config'])}`" if results["config"] else ""
    text = (
        f"A step of {results['seeds']} networks{constants}, each on {results['batchsize']} records of its own; medians."
    )
    return f"{measured(results['machine'])}\n{text}\n\n{table}"


def measured(machine: dict[str, Any]) -> str:
    """When, on what and by which command."""
    return (
        f"{machine['date'][:10]}, {machine['cpu']}, {machine['cores']} cores, load {machine['load']}, jax "
        f"{machine['versions']['jax']}:\n\n```\n{machine['command']}\n```\n"
    )


SECTIONS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("throughput", "Throughput", throughput_tables),
    ("device", "On a device", device_report),
    ("compiled", "Programs for devices that were not there", compiled_page),
    ("parity", "Parity", parity_table),
    ("latency", "Latency of one record", latency_table),
    ("scaling", "Scaling", format_table),
    ("precision", "bfloat16 against float32", precision_table),
    ("seeds", "Several seeds: in one program, or in turn", seeds_table),
    ("input_pipeline", "Input pipeline", input_table),
)


if __name__ == "__main__":
    main()
