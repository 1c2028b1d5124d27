"""Are our networks numerically the originals? Compares them with stored outputs of the tf.keras and torch networks.

    python -m benchmarks.parity --golden DIR [--model all] [--precision highest default] [--out parity.json]

DIR holds `inputs.npz` and, per network, `<model>.npz` with the original's outputs and its weights: `<model>.h5`,
`<model>.weights.npz`, `<model>.pt`, or `<model>.spec.json` with `seed.txt` to draw them by rule. What it lacks is taken
from `benchmarks/golden`, which `benchmarks/originals.py` writes. Bounds are for `highest`
precision; what the device's `default` multiplications give is shown beside it, never judged. Beside the gradient
norms stands what a change of the weights in their last bit does to them, and where three times that is more than the
bound, it is the bound: in deep networks a ReLU or a pool that flips moves them by far more than rounding.
"""

import dataclasses
import json
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.parts.drawn import draw
from benchmarks.parts.machine import machine
from experiments.cli import Parser, add_cache_flag, execute
from imlenet_jax.errors import UserError
from imlenet_jax.files import write_json
from imlenet_jax.interop import Imported, import_weights
from imlenet_jax.interop.weights import import_arrays
from imlenet_jax.models import MODELS, create_model, entry, make_config
from imlenet_jax.runtime.compilation import use_cache
from imlenet_jax.runtime.precision import PRECISIONS, set_precision
from imlenet_jax.training.optimizers import make_optimizer
from imlenet_jax.training.parallel import print_devices
from imlenet_jax.training.step import TrainState, loss_and_gradient, new_state, update

FORWARD, ATTENTION, GRADIENT, STATISTICS, LOSS, AFTER = 1e-4, 1e-4, 1e-2, 1e-3, 1e-2, 0.02
CHANGES = 6  # of all weights in their last bit, by which a network's own sensitivity is measured
TIMES_OWN = 3  # as far as the largest of them may the original's gradient norms lie from ours, where that is more
# Adam's first steps amplify float32 rounding: later losses of the deep networks are shown, not judged.
JUDGED_STEPS = {
    **{"imle_net": 10, "mousavi": 10, "rajpurkar": 2, "ecgnet": 4, "resnet101": 2},
    **{"xresnet1d101": 2, "s4": 10},
}
JUDGED_AFTER = ("imle_net", "mousavi", "s4")
GOLDEN = Path(__file__).parent / "golden"
TRAINING_BATCH = 8


def main() -> None:
    """Parse the flags and run."""
    parser = Parser(prog="python -m benchmarks.parity", description="Parity with the original networks.")
    parser.add_argument("--golden", type=Path, required=True, help="folder of stored outputs and weights")
    parser.add_argument("--model", default="all", help=f"one of {', '.join(MODELS)}, or all")
    parser.add_argument(
        "--precision",
        nargs="+",
        choices=PRECISIONS,
        help="of multiplications: highest is judged, default shown; both where they differ, highest on a CPU",
    )
    parser.add_argument("--out", type=Path, help="write the results there as JSON")
    add_cache_flag(parser)
    execute(parser, run)


def run(args) -> None:
    """Compare, print a table, and end with an error where a bound is broken."""
    print_devices()
    use_cache(args.compilation_cache)
    models = list(MODELS) if args.model == "all" else [args.model]
    x, y = read_inputs(args.golden)
    levels = args.precision or (["highest"] if jax.default_backend() == "cpu" else ["highest", "default"])
    results: dict[str, dict[str, Any]] = {}
    shown: dict[str, dict[str, Any]] = {}
    for model in models:
        entry(model)
        for level in levels:
            set_precision(level)
            rows = compare(model, args.golden, x, y)
            if level == "default":
                rows = {name: row | {"pass": None} for name, row in rows.items()}
            (shown if level == "default" else results)[model] = rows
            _print_table(model, rows, level)
    if args.out:
        at_default = {"default_precision": shown} if shown else {}
        write_json(args.out, {"machine": machine("benchmarks.parity"), **results, **at_default})
        print(f"written: {args.out}")
    broken = [
        f"{model} ({name})" for model in results for name, row in results[model].items() if row.get("pass") is False
    ]
    if broken:
        raise UserError(f"parity is broken: {', '.join(broken)}")
    print(f"parity: all bounds hold for {', '.join(models)}" if results else "parity: nothing is judged at default")


def read_inputs(golden: Path) -> tuple[np.ndarray, np.ndarray]:
    """The folder's records, standardised (16, 1000, 12) float32, and their labels (16, 5) float32."""
    inputs = _read(golden / "inputs.npz", ("x", "y"))
    return inputs["x"], inputs["y"].astype(np.float32)


def compare(model: str, golden: Path, x: np.ndarray, y: np.ndarray) -> dict[str, dict[str, Any]]:
    """Rows of `error`, `bound` and `pass` (None where a figure is shown only) for one network.

    `x` is (n, 1000, 12) float32, standardised already; `y` (n, 5).
    """
    golden = place(model, golden)
    stored = _read(golden / f"{model}.npz", ("train_loss",))
    imported = golden_weights(model, golden)
    forward = jax.jit(lambda variables, x: create_model(model).apply(variables, x))
    logits, aux = forward(imported.variables, x)
    rows = {"forward": _row(_output_error(stored, logits), FORWARD)}
    for level, weights in aux.items():
        rows[f"attention {level}"] = _row(np.max(np.abs(weights - stored[level])), ATTENTION)
    training = _train(model, imported, stored, x, y)
    return rows | training["rows"] | {"after": _after(model, stored, forward(training["variables"], x)[0])}


def _train(
    model: str, imported: Imported, stored: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray
) -> dict[str, Any]:
    network = create_model(model, _without_dropout(model))
    optimizer = make_optimizer(model)
    state = new_state(jax.tree.map(jnp.asarray, imported.variables), optimizer)
    rows = _gradient_rows(network, imported, stored, state, x[:TRAINING_BATCH], y[:TRAINING_BATCH])

    step = jax.jit(partial(update, network, optimizer), donate_argnums=0)
    losses = []
    for index in range(len(stored["train_loss"])):
        batch = np.arange(TRAINING_BATCH * index, TRAINING_BATCH * (index + 1)) % len(x)
        state, outcome = step(state, x[batch], y[batch], jax.random.key(0))
        losses.append(float(outcome.loss))
        if index == 0:
            statistics = _statistics_error(stored, imported, state)
    judged = JUDGED_STEPS[model]
    relative = np.abs(np.array(losses) / stored["train_loss"] - 1)
    loss = _row(np.max(relative[:judged]), LOSS) | {
        "judged_steps": judged,
        "ours": losses,
        "theirs": stored["train_loss"].tolist(),
    }
    if statistics is not None:
        rows["BatchNorm statistics"] = _row(statistics, STATISTICS)
    return {"rows": rows | {"training loss": loss}, "variables": state.variables}


def _gradient_rows(
    network: Any, imported: Imported, stored: dict[str, np.ndarray], state: TrainState, x: np.ndarray, y: np.ndarray
) -> dict[str, dict[str, Any]]:
    @jax.jit
    def norms_of_all(state: TrainState) -> Any:
        _, gradient = loss_and_gradient(network, state, x, y, jax.random.key(0))
        return jax.tree.map(lambda array: jnp.linalg.norm(array.ravel()), gradient)

    def norms(state: TrainState) -> np.ndarray:
        found = norms_of_all(state)
        return np.array([float(_leaf(found, imported.targets[str(name)].path)) for name in stored["grad_name"]])

    ours = norms(state)
    changed = (state._replace(params=_last_bit_changed(state.params, seed)) for seed in range(CHANGES))
    own = max(_norm_error(norms(other), ours) for other in changed)
    return {
        "gradient norms": _row(_norm_error(ours, stored["grad_norm"]), max(GRADIENT, TIMES_OWN * own)),
        "gradient norms, last bit of the weights changed": _row(own, None),
    }


def _norm_error(norms: np.ndarray, wanted: np.ndarray) -> float:
    # An array whose gradient all but vanishes is judged against the whole gradient, not against itself.
    return float(np.max(np.abs(norms - wanted) / np.maximum(wanted, 1e-4 * np.linalg.norm(wanted))))


def _last_bit_changed(params: Any, seed: int) -> Any:
    """Every weight up or down to its neighbour in float32."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: np.nextafter(a, rng.choice(np.float32([-np.inf, np.inf]), a.shape)), params)


def _statistics_error(stored: dict[str, np.ndarray], imported: Imported, state: TrainState) -> float | None:
    if "stat_name" not in stored or len(stored["stat_name"]) == 0:
        return None
    paths = [imported.targets[str(name)].path for name in stored["stat_name"]]
    ours = np.array([np.linalg.norm(_leaf(state.batch_stats, path)) for path in paths])
    return float(np.max(np.abs(ours / stored["stat_norm"] - 1)))


def _after(model: str, stored: dict[str, np.ndarray], logits: jax.Array) -> dict[str, Any]:
    error = _output_error({key.removesuffix("_after"): stored[key] for key in stored if key.endswith("_after")}, logits)
    return _row(error, AFTER if model in JUDGED_AFTER else None)


def _output_error(stored: dict[str, np.ndarray], logits: jax.Array) -> float:
    """Largest difference of probabilities; of logits, relative to the largest logit."""
    if "probs" in stored:
        return float(np.max(np.abs(jax.nn.sigmoid(logits) - stored["probs"])))
    return float(np.max(np.abs(logits - stored["logits"])) / np.max(np.abs(stored["logits"])))


def place(model: str, golden: Path) -> Path:
    """Where a network's outputs are: the folder, or that which comes with the benchmarks."""
    own = not (golden / f"{model}.npz").exists() and (GOLDEN / f"{model}.npz").exists()
    return GOLDEN if own else golden


def golden_weights(model: str, golden: Path) -> Imported:
    """The network's weights from the folder: a file, or drawn by rule from its specification."""
    for suffix in (".h5", ".weights.npz", ".pt"):
        path = golden / f"{model}{suffix}"
        if path.is_file():
            return import_weights(model, path)
    spec, seed = golden / f"{model}.spec.json", golden / "seed.txt"
    if not (spec.is_file() and seed.is_file()):
        raise UserError(
            f"{golden} has no weights of {model}: neither .h5, .weights.npz, .pt nor .spec.json with seed.txt"
        )
    number = int(seed.read_text())
    return import_arrays(model, {n: draw(number, n, tuple(s), bn) for n, s, bn in json.loads(spec.read_text())})


def _without_dropout(model: str) -> Any:
    config = make_config(model)
    return dataclasses.replace(config, dropout=0.0) if hasattr(config, "dropout") else config  # type: ignore[call-arg]


def _leaf(tree: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def _row(error: float, bound: float | None) -> dict[str, Any]:
    # `not (error <= bound)` would do for NaN too, but says less.
    passed = None if bound is None else bool(np.isfinite(error) and error <= bound)
    return {"error": float(error), "bound": bound, "pass": passed}


def _read(path: Path, needed: tuple[str, ...]) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file; --golden takes a folder as the head of benchmarks/parity.py describes it"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a readable numpy archive ({error})") from None
    for name in needed:
        if name not in arrays:
            raise UserError(f"{path} has no array '{name}'")
    return arrays


def _print_table(model: str, rows: dict[str, dict[str, Any]], level: str) -> None:
    title = model if level == "highest" else f"{model}, {level} precision"
    print(f"\n{title:<50}{'error':>12}{'bound':>10}")
    for name, row in rows.items():
        bound = "-" if row["bound"] is None else f"{row['bound']:.2g}"
        verdict = {True: "pass", False: "FAIL", None: "shown"}[row["pass"]]
        print(f"  {name:<48}{row['error']:>12.2e}{bound:>10}  {verdict}")
    loss = rows["training loss"]
    for index, (ours, theirs) in enumerate(zip(loss["ours"], loss["theirs"], strict=True)):
        verdict = "judged" if index < loss["judged_steps"] else "shown"
        print(f"    step {index:>2}: loss {ours:.6f}, original {theirs:.6f} ({ours / theirs - 1:+.2e}, {verdict})")


if __name__ == "__main__":
    main()
