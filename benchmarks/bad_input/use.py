"""Bad input to networks: weights of strangers, checkpoints, flags, and arrays in Python."""

import contextlib
import io
import shutil
import sys
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import h5py
import numpy as np

import experiments.compare
import experiments.convert
import experiments.inference
import experiments.prepare
import experiments.synthesize
import experiments.test
import experiments.train
from benchmarks.bad_input.data import Case
from benchmarks.bad_input.world import CONFIG, MODEL, World, classifier
from experiments.results import read_sets
from imlenet_jax.classifier import load
from imlenet_jax.data.groups import columns_of
from imlenet_jax.data.shards import open_shards
from imlenet_jax.errors import UserError
from imlenet_jax.evaluation.conformal import evaluate_sets
from imlenet_jax.interop import import_weights
from imlenet_jax.models import make_config


def _weights(spoil: Callable[[h5py.File], Any]) -> Callable[[World], Any]:
    def use(world: World) -> None:
        with h5py.File(world.weights, "r+") as file:
            spoil(file)
        import_weights(MODEL, world.weights, CONFIG)

    return use


def _first(file: h5py.File, array: Any) -> None:
    """Put another array in the place of the first."""
    layer = next(iter(file.attrs["layer_names"]))
    name = f"{layer}/{next(iter(file[layer].attrs['weight_names']))}"
    old = file[name][()]
    del file[name]
    file[name] = array(old)


def _npz(name: str, array: Any) -> Callable[[World], Any]:
    def use(world: World) -> None:
        np.savez_compressed(world.root / "w.npz", **{name: array})
        import_weights("ecgnet", world.root / "w.npz")

    return use


def command(module: ModuleType, *flags: Any) -> Callable[[World], Any]:
    """Call a command as the shell does; what it says on stderr before it ends with status 2 is its refusal."""

    def use(world: World) -> None:
        said, hooks = io.StringIO(), (sys.argv, warnings.showwarning, sys.unraisablehook)
        sys.argv = [module.__name__, *(str(flag).format(world.root) for flag in flags)]
        try:
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
                module.main()
        except SystemExit as end:
            if end.code != 2:
                raise RuntimeError(f"exit status {end.code}: {said.getvalue()}") from None
            raise UserError(said.getvalue().strip()) from None
        finally:
            sys.argv, warnings.showwarning, sys.unraisablehook = hooks

    return use


def _train(*flags: Any) -> Callable[[World], Any]:
    places = ("--data_dir", "{}/shards", "--checkpoint_dir", "{}/new", "--log_dir", "{}/logs")
    return command(experiments.train, *places, *flags)


WEIGHTS = (
    Case("weights", "are not there", "no such weight file; check --weights", lambda w: import_weights(
        MODEL, w.root / "x.h5")),
    Case("weights", "of another framework", "takes weights of keras, in a file that ends in", lambda w: import_weights(
        MODEL, w.write("w.pt", b""))),
    Case(".h5", "is something else", "is not a keras weight file .*signature", lambda w: import_weights(
        MODEL, w.write("w.h5", b"hello"))),
    Case(".h5", "cut off", "is not a keras weight file .*truncated", lambda w: import_weights(
        MODEL, w.cut(w.weights, 5000), CONFIG)),
    Case(".h5", "without layer_names", "keras weight file .*layer_names", _weights(
        lambda file: file.attrs.pop("layer_names"))),
    Case(".h5", "lacks a layer", "the dense layer head is missing", _weights(
        lambda file: file.attrs.create("layer_names", file.attrs["layer_names"][:-1]))),
    Case(".h5", "a layer too many", "is one too many", _weights(
        lambda file: file.attrs.create("layer_names", [*file.attrs["layer_names"], file.attrs["layer_names"][-1]]))),
    Case(".h5", "of a network of other sizes", "does not fit mousavi: .* has shape", lambda w: import_weights(
        MODEL, w.weights, make_config(MODEL, {"filters": [8, 4], "lstm_units": 4, "hidden": 8}))),
    Case(".h5", "NaN", "holds NaN or infinite values", _weights(lambda file: _first(file, lambda old: old * np.nan))),
    Case(".h5", "text", "holds no numbers", _weights(
        lambda file: _first(file, lambda old: np.full(old.shape, "x", h5py.string_dtype())))),
    Case(".h5", "an array without shape", "is not a keras weight file .*larger than itself", _weights(
        lambda file: _first(file, lambda old: h5py.Empty("f4")))),
    Case(".h5", "an array in another file", "lies in another file", lambda w: (
        shutil.copy(w.weights, w.root / "other.h5"), _weights(lambda file: _first(
            file, lambda old: h5py.ExternalLink("other.h5", next(iter(file.attrs["layer_names"])))))(w))),
    Case(".npz", "is something else", "is not a numpy archive of plain arrays", lambda w: import_weights(
        "ecgnet", w.write("w.npz", b"hello"))),
    Case(".npz", "of another network", "'parallel_conv.0.weight' is missing", _npz("x", np.zeros(3))),
    Case(".npz", "unpacks to far more", "holds 67,108,992 bytes; the weights of ecgnet", _npz(
        "x", np.zeros(2**26, np.int8))),
)  # fmt: skip

CHECKPOINTS = (
    Case("checkpoint", "is not there", "no such checkpoint folder", lambda w: load(w.root / "x")),
    Case("checkpoint", "none in the folder", "holds no finished checkpoint", lambda w: load(w.data)),
    Case("checkpoint", "cut arrays", "is damaged", lambda w: (
        [w.cut(path, 10) for path in w.checkpoint.rglob("d/*") if "variables" in str(path)], load(w.checkpoint))),
    Case("checkpoint", "no description", "has no readable description", lambda w: (
        w.cut(w.checkpoint / "0" / "meta" / "metadata", 20), load(w.checkpoint))),
    Case("checkpoint", "of another version", "is of another format", lambda w: load(w.meta(format=99))),
    Case("checkpoint", "an entry too many", "description of another shape .*colour", lambda w: load(w.meta(colour=1))),
    Case("checkpoint", "a network that is a list", "another shape .its 'model' cannot", lambda w: load(w.meta(model=["x"]))),
    Case("checkpoint", "a scaler that divides by 0", "another shape .its 'scaler' cannot", lambda w: load(
        w.meta(scaler={"mean": 0, "std": 0}))),
    Case("checkpoint", "thresholds for other classes", "another shape .its 'thresholds' cannot", lambda w: load(
        w.meta(thresholds=[0.5]))),
    Case("checkpoint", "a class too few", "names other numbers of classes or leads", lambda w: load(
        w.meta(classes=["NORM"]))),
    Case("checkpoint", "of an unknown network", "'vgg' is unknown", lambda w: load(w.meta(model="vgg"))),
    Case("checkpoint", "an option that is none", "has no option 'depth'", lambda w: load(w.meta(config={"depth": 9}))),
)  # fmt: skip

FLAGS = (
    Case("--model", "unknown", "--model 'cnn' is unknown: choose one of", _train("--model", "cnn")),
    Case("--speed", "is no flag", "unrecognized arguments: --speed 9", _train("--speed", "9")),
    Case("--epochs", "0", "'0' is not a whole number of at least 1", _train("--epochs", "0")),
    Case("--lr", "nan", "'nan' is not a finite number", _train("--lr", "nan")),
    Case("--lr", "0", "'0' is not a number above 0", _train("--lr", "0")),
    Case("--loggr", "perhaps", "'perhaps' is neither True nor False", _train("--loggr", "perhaps")),
    Case("--seed", "-1", "'-1' is not a whole number from 0 to 4294967295", _train("--seed", "-1")),
    Case("--min_likelihood", "101", "'101' is not a likelihood", _train("--min_likelihood", "101")),
    Case("--train_folds", "words", "'all' is not a list of folds", _train("--train_folds", "all")),
    Case("--train_folds", "1-11", "names folds outside 1 to 10", _train("--train_folds", "1-11")),
    Case("--train_folds", "share one with --val_folds", "--train_folds shares fold 9 with --val_folds", _train(
        "--train_folds", "1-9")),
    Case("--train_folds", "share one with --test_folds", "--train_folds shares fold 10 with --test_folds", _train(
        "--train_folds", "1-8,10")),
    Case("--val_folds", "share one with --test_folds", "--val_folds shares fold 10 with --test_folds", _train(
        "--val_folds", "9,10")),
    Case("--config", "is no JSON", "'{' is not a JSON object", _train("--config", "{{")),
    Case("--config", "nested too deeply", r"\[\.\.\.' is not a JSON object", _train("--config", "[" * 50_000)),
    Case("--config", "an unknown option", "imle_net has no option 'depth'", _train(
        "--batchsize", "2", "--num_devices", "1", "--config", '{{"depth": 3}}')),
    Case("--config", "a value of another kind", "takes a value like", _train(
        "--batchsize", "2", "--num_devices", "1", "--config", '{{"lstm_units": "x"}}')),
    Case("--batchsize", "beyond the data", "--batchsize 4096 is larger than the", _train("--batchsize", "4096")),
    Case("--num_devices", "999", "--num_devices 999: there", _train("--num_devices", "999")),
    Case("--sub", "True", "--sub True starts from a trained 5-class network, and", _train(
        "--batchsize", "2", "--num_devices", "1", "--train_folds", "1-4", "--val_folds", "5-9", "--sub", "True")),
    Case("--verify", "a damaged shard", r"^error: the shard .*shard-00000\.npy does not match its checksum", lambda w: (
        w.flip(w.shards / "shard-00000.npy", 5000), _train("--verify", "True")(w))),
    Case("--sampling_rate", "250", "PTB-XL has no recordings at 250 Hz", command(experiments.prepare, "--sampling_rate", "250")),
    Case("--workers", "many", "'many' is not a whole", command(experiments.prepare, "--workers", "many")),
    Case("--out", "is a file", "a file is in its way", command(
        experiments.prepare, "--data_dir", "{}/data", "--out", "{}/weights.h5")),
    Case("--lead_map", "no lead", "is not a list of NAME=LEAD", command(
        experiments.inference, "--dir", "x", "--lead_map", "MLII=V9")),
    Case("--unit", "Pa", "'Pa' is not mV, uV or V", command(experiments.inference, "--dir", "x", "--unit", "Pa")),
    Case("--dir", "is not given", "required: --dir", command(experiments.inference)),
    Case("--temperature", "on the folds it is fitted on", "--temperature True is fitted on --val_folds", command(
        experiments.test, "--split", "val", "--temperature", "True")),
    Case("--coverage", "2", "'2' is not a share from 0.5 to 0.999", command(experiments.test, "--coverage", "2")),
    Case("--coverage", "on the folds it is fitted on", "--coverage is fitted on --val_folds", command(
        experiments.test, "--split", "val", "--coverage", "0.9")),
    Case("--coverage", "beyond the records", "--coverage 0.9 takes 9 validation records with a class", lambda w: evaluate_sets(
        (np.eye(5), np.eye(5)), (np.eye(5), np.eye(5)), "ABCDE", 0.9)),
    Case("--by", "no column of the data", "--by shoe: .* has no such column; it has age", lambda w: columns_of(
        open_shards(w.shards), ["shoe"], np.arange(2))),
    Case("--sets", "is not there", "no such file; make it with", lambda w: read_sets(w.root / "x", classifier().meta)),
    Case("--sets", "is something else", "is not a file of sets, or is damaged", lambda w: read_sets(
        w.write("sets.json", b'{"sets": 3}'), classifier().meta)),
    Case("--scaler_std", "0", "argument --scaler_std: '0' is not a number above 0", command(
        experiments.convert, "--model", MODEL, "--weights", "x", "--out", "y", "--scaler_std", "0")),
    Case("--resamples", "0", "argument --resamples: '0' is not", command(
        experiments.compare, "x", "--resamples", "0")),
    Case("--records", "0", "argument --records: '0' is", command(experiments.synthesize, "--records", "0")),
)  # fmt: skip

ECG = np.random.default_rng(0).normal(0, 0.3, size=(2, 1000, 12))


def _predict(signals: Any, **arguments: Any) -> Callable[[World], Any]:
    return lambda w: classifier().predict_proba(signals, **arguments)


PYTHON = (
    Case("signals", "of one record", r"signals have shape \(1000, 12\), not", _predict(ECG[0])),
    Case("signals", "transposed", "the last two axes are swapped", _predict(ECG.transpose(0, 2, 1))),
    Case("signals", "at 500 Hz", r"shape \(2, 5000, 12\), not \(n, 1000, 12\)", _predict(np.repeat(ECG, 5, axis=1))),
    Case("signals", "of eight leads", r"shape \(2, 1000, 8\), not", _predict(ECG[:, :, :8])),
    Case("signals", "none", r"shape \(0, 1000, 12\), not", _predict(ECG[:0])),
    Case("signals", "of several lengths", "signals are no array", _predict([ECG[0], ECG[1, :500]])),
    Case("signals", "text", "signals are <U1, not numbers", _predict(np.full(ECG.shape, "x"))),
    Case("signals", "objects", "signals are object, not numbers", _predict(ECG.astype(object))),
    Case("signals", "complex", "signals are complex128, not numbers", _predict(ECG.astype(complex))),
    Case("signals", "NaN", "record 1 of the signals holds NaN", _predict(np.stack([ECG[0], ECG[1] * np.nan]))),
    Case("signals", "beyond float32", "record 0 of the signals holds NaN or infinite", _predict(ECG * 1e300)),
    Case("signals", "in uV", "deflect by .* mV: is it in uV", _predict(ECG * 1000)),
    Case("signals", "in V", "deflect by .* mV: is it in V", _predict(ECG / 1000)),
    Case("batchsize", "0", "batchsize is 0, not a whole number", _predict(ECG, batchsize=0)),
    Case("attend", "a network without attention", "mousavi has no attention", lambda w: classifier().attend(ECG)),
)  # fmt: skip

USE = WEIGHTS + CHECKPOINTS + FLAGS + PYTHON
