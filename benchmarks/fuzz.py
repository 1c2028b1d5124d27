"""Damaged files by the thousand: each reader gives a result or one of our sentences, never another exception.

python -m benchmarks.fuzz --cases 1000 --out benchmarks/results/fuzz.json

Healthy files are changed at random, from a seed: bits are flipped, pieces cut, doubled or moved, and numbers, paths
and signs put where they hurt. Where a file carries a checksum it is computed anew, since else nothing behind it is met.
"""

import argparse
import hashlib
import json
import random
import resource
import tempfile
import time
import traceback
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from benchmarks.bad_input.world import CONFIG, MODEL, World, make_world
from benchmarks.parts.machine import machine
from experiments.cli import Parser, execute, positive_int, seed
from imlenet_jax.classifier import load
from imlenet_jax.data.manifest import MANIFEST
from imlenet_jax.data.ptbxl import DATABASE, LEADS, STATEMENTS, parse_scp_codes, read_metadata, read_statements
from imlenet_jax.data.records import read_recording
from imlenet_jax.data.shards import OpenShard, Shard, open_shards
from imlenet_jax.data.sources import TableFormat, read_source
from imlenet_jax.errors import UserError
from imlenet_jax.evaluation.comparison import read_predictions
from imlenet_jax.files import write_json
from imlenet_jax.interop import import_weights
from imlenet_jax.interop.layout import LAYOUTS, TORCH_LEAVES
from imlenet_jax.models import abstract_variables, create_model, make_config

TOKENS = (
    *(b"0", b"-1", b"1e999", b"nan", b"inf", b"99999999999", b"9" * 400, b"0.0", b"\0", b"\xff\xfe", b"\n", b"\r"),
    *(b",", b'"', b"'", b"{", b"}", b"[" * 300, b"../x", b"/etc/passwd", b"~", b"#", b"null", b"true", b"x" * 300),
    *(b"(", b")", b"/", b":", b"+", b" ", b"|O", b"<f8", b"e", b"\xe2\x80\xa8"),
)
TORCH_MODEL = "ecgnet"
TORCH_CONFIG = make_config(TORCH_MODEL, {"length": 200, "filters": 4, "blocks": 5, "lstm_units": 4})


class Target(NamedTuple):
    """A reader and the healthy file it reads.

    Attributes:
        path: the file; it is written anew for every case.
        read: reads it.
        seal: puts right the checksum in changed bytes.
    """

    path: Path
    read: Callable[[], Any]
    seal: Callable[[bytes], bytes] = bytes


def main() -> None:
    """Parse the flags and run."""
    parser = Parser(prog="python -m benchmarks.fuzz", description="Read damaged files.")
    parser.add_argument("--cases", type=positive_int, default=1000, help="of each reader")
    parser.add_argument("--seed", type=seed, default=0, help="of the damage")
    parser.add_argument("--out", type=Path, help="JSON to write")
    execute(parser, run)


def run(args: argparse.Namespace) -> None:
    """Fuzz every reader, print, write."""
    results = fuzz_all(args.cases, args.seed)
    for name, result in results["readers"].items():
        counts = ", ".join(f"{result[key]} {key}" for key in ("refused", "read", "crashed"))
        print(f"{name:24} {result['cases']} cases: {counts}; slowest {result['slowest_cpu_seconds']:.3f} CPU s")
        for crash in result["crashes"]:
            print(crash)
    print(f"peak memory {results['peak_memory_mb']:.0f} MB, {results['memory_grown_mb']:.0f} MB of it in reading")
    if args.out:
        write_json(args.out, {"machine": machine("benchmarks.fuzz"), **results})
        print(f"written: {args.out}")
    crashed = sum(result["crashed"] for result in results["readers"].values())
    if crashed:
        raise UserError(f"{crashed} cases ended in an exception that is not ours, the first of each reader is above")


def fuzz_all(cases: int, seed: int) -> dict[str, Any]:
    """Counts per reader, the slowest case, and the memory that all of it took."""
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of wfdb and numpy about what they are given
        found = targets(make_world(Path(name)))
        before = _peak_memory_mb()
        readers = {label: fuzz(target, cases, f"{seed} {label}") for label, target in tqdm(found.items())}
    peak = _peak_memory_mb()
    return {"readers": readers, "peak_memory_mb": peak, "memory_grown_mb": peak - before}


def fuzz(target: Target, cases: int, seed: str) -> dict[str, Any]:
    """Read a target's file damaged in `cases` ways."""
    rng, healthy = random.Random(seed), target.path.read_bytes()
    ends, slowest, crashes = {"refused": 0, "read": 0, "crashed": 0}, 0.0, []
    target.read()
    for _ in range(cases):
        target.path.write_bytes(target.seal(damage(healthy, rng)))
        start = time.process_time()
        try:
            target.read()
            end = "read"
        except UserError as error:
            end = "crashed" if "\n" in str(error) else "refused"
        except Exception:
            end = "crashed"
            crashes.append(traceback.format_exc())
        ends[end] += 1
        slowest = max(slowest, time.process_time() - start)
    target.path.write_bytes(healthy)
    return {"cases": cases, **ends, "slowest_cpu_seconds": slowest, "crashes": crashes[:1]}


def damage(data: bytes, rng: random.Random) -> bytes:
    """`data` changed at one to four places; one time in thirty something else altogether."""
    if rng.random() < 1 / 30:
        return rng.randbytes(rng.randrange(300))
    for _ in range(rng.randint(1, 4)):
        at, length = rng.randrange(len(data) + 1), rng.randrange(1, 20)
        head, piece, tail = data[:at], data[at : at + length], data[at + length :]
        junk, token = rng.randbytes(length), rng.choice(TOKENS)
        flipped = bytes([piece[0] ^ 1 << rng.randrange(8)]) + piece[1:] if piece else junk
        middle = rng.choice((b"", piece + piece, junk, flipped, flipped, token + piece, token))
        data = rng.choice((head + middle + tail,) * 8 + (head, tail + head))
    return data


def targets(world: World) -> dict[str, Target]:
    """Every reader of files that others may have written."""
    stem = world.header().with_suffix("")
    table = TableFormat(100, LEADS)
    samples = np.random.default_rng(0).normal(size=(30, 12))
    np.savetxt(csv := world.root / "a.csv", samples, delimiter=",", fmt="%.3f", header=",".join(LEADS), comments="")
    np.save(npy := world.root / "a.npy", samples)
    codes = world.write("codes.txt", "{'NORM': 100.0, 'SR': 0.0, 'LVH': 15.0}")
    predictions = world.write("p.csv", "ecg_id,label_A,label_B,prob_A,prob_B\n1,0,1,0.25,0.5\n2,1,0,1.0,1e-3\n")
    shard = world.shards / "shard-00000.npy"
    meta = world.checkpoint / "0" / "meta" / "metadata"
    return {
        DATABASE: Target(world.data / DATABASE, lambda: read_metadata(world.data / DATABASE)),
        STATEMENTS: Target(world.data / STATEMENTS, lambda: read_statements(world.data / STATEMENTS)),
        "scp_codes": Target(codes, lambda: _codes(codes)),
        "header, of PTB-XL": Target(world.header(), lambda: read_recording(stem, 100)),
        "header, of anyone": Target(world.header(), lambda: read_source(stem)),
        ".csv": Target(csv, lambda: read_source(csv, table)),
        ".npy": Target(npy, lambda: read_source(npy, table)),
        "manifest": Target(world.shards / MANIFEST, lambda: open_shards(world.shards)),
        "manifest, sealed": Target(world.shards / MANIFEST, lambda: open_shards(world.shards), _seal_manifest),
        "shard": Target(shard, lambda: _shard(world, None)),
        "shard, sealed": Target(shard, lambda: _shard(world, zlib.crc32(shard.read_bytes()))),
        "predictions": Target(predictions, lambda: read_predictions(predictions)),
        ".h5": Target(world.weights, lambda: import_weights(MODEL, world.weights, CONFIG)),
        ".npz": _npz(world.root / "w.npz", np.savez_compressed),
        "array in an .npz": _npz(world.root / "part.npz", np.savez, damaged="fc.bias"),
        "checkpoint's description": Target(meta, lambda: load(world.checkpoint)),
    }


def _codes(path: Path) -> None:
    try:
        parse_scp_codes(path.read_bytes().decode("utf-8", "replace"))
    except ValueError as error:
        raise UserError(str(error)) from None


def _seal_manifest(data: bytes) -> bytes:
    head, end, body = data.partition(b'",\n')
    return head[:14] + hashlib.sha256(body).hexdigest().encode() + end + body


def _shard(world: World, crc32: int | None) -> None:
    content = json.loads((world.shards / MANIFEST).read_bytes())
    entry = content["shards"][0]
    shard = Shard(entry["file"], entry["records"], int(entry["crc32"], 16) if crc32 is None else crc32)
    OpenShard(world.shards, shard, content["length"], len(content["leads"])).check_unchanged()


def _npz(path: Path, save: Callable[..., None], damaged: str | None = None) -> Target:
    """Weights of a tiny torch network by the names of its state dict; to damage as a whole, or one array of them."""
    shapes, arrays = abstract_variables(create_model(TORCH_MODEL, TORCH_CONFIG)), {}
    for layer in LAYOUTS[TORCH_MODEL](TORCH_CONFIG):
        for leaf in TORCH_LEAVES[layer.kind]:
            node = shapes[leaf.collection]
            for key in (*layer.path, leaf.name):
                node = node[key]
            shape = node.shape if leaf.axes is None else tuple(node.shape[axis] for axis in np.argsort(leaf.axes))
            arrays[f"{layer.source}.{leaf.source}"] = np.full(shape, 0.5, np.float32)
    if damaged is None:
        save(path, **arrays)
        return Target(path, lambda: import_weights(TORCH_MODEL, path, TORCH_CONFIG))
    np.save(member := path.with_suffix(".npy"), arrays.pop(damaged))

    def read() -> None:
        save(path, **arrays)
        with zipfile.ZipFile(path, "a") as archive:
            archive.write(member, f"{damaged}.npy")
        import_weights(TORCH_MODEL, path, TORCH_CONFIG)

    return Target(member, read)


def _peak_memory_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
