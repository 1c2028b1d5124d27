"""Healthy files of every kind, for the cases to spoil one thing in."""

import csv
import dataclasses
import json
import shutil
import struct
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import jax
import numpy as np

from imlenet_jax.checkpoints.description import Meta
from imlenet_jax.classifier import Classifier
from imlenet_jax.data.manifest import read_manifest, write_manifest
from imlenet_jax.data.open import open_dataset
from imlenet_jax.data.prepare import prepare
from imlenet_jax.data.ptbxl import LEADS, SUPERCLASSES
from imlenet_jax.data.synthetic import write_dataset
from imlenet_jax.interop.layout import KERAS_LEAVES, LAYOUTS
from imlenet_jax.models import Config, abstract_variables, create_model, init_variables, make_config
from imlenet_jax.training.saving import Checkpoints

MODEL = "mousavi"
CONFIG: Config = make_config(MODEL, {"filters": [4, 4], "lstm_units": 4, "hidden": 8})
RECORDS = 20


@dataclass(frozen=True)
class World:
    """A folder of healthy files: PTB-XL's layout, a CSV and an array of one ECG, shards, a checkpoint, keras weights."""

    root: Path

    @property
    def data(self) -> Path:
        """A folder in PTB-XL's layout, of synthetic records at 100 Hz."""
        return self.root / "data"

    @property
    def shards(self) -> Path:
        """Those of `data`."""
        return self.root / "shards"

    @property
    def checkpoint(self) -> Path:
        """The folder of a run with one checkpoint, of epoch 0."""
        return self.root / "checkpoints" / MODEL

    @property
    def weights(self) -> Path:
        """Keras weights of the tiny network."""
        return self.root / "weights.h5"

    def header(self, rate: int = 100) -> Path:
        """That of the first record."""
        return self.data / f"records{rate}/00000/00001_{'lr' if rate == 100 else 'hr'}.hea"

    def edit(self, path: Path, old: str, new: str, count: int = -1) -> Path:
        """Replace text that is there."""
        text = path.read_text("utf-8")
        if old not in text:
            raise LookupError(f"{path} has no {old!r} to spoil")
        path.write_text(text.replace(old, new, count), "utf-8")
        return path

    def write(self, name: str, content: bytes | str) -> Path:
        """A file of this content."""
        path = self.root / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def cut(self, path: Path, size: int) -> Path:
        """Keep the first bytes only."""
        path.write_bytes(path.read_bytes()[:size])
        return path

    def flip(self, path: Path, place: int) -> Path:
        """Invert a bit of the byte at `place`."""
        data = bytearray(path.read_bytes())
        data[place] ^= 1
        path.write_bytes(data)
        return path

    def cell(self, column: str, value: str, row: int = 2, table: str = "ptbxl_database.csv") -> Path:
        """Change a cell of a table of `data`."""
        path = self.data / table
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
        rows[row + 1][rows[0].index(column)] = value
        with open(path, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
        return path

    def manifest(self, **changes: Any) -> Path:
        """Write the manifest anew with other entries, and a checksum that holds."""
        content = {name: value for name, value in read_manifest(self.shards).items() if name != "checksum"}
        write_manifest(self.shards, content | changes)
        return self.shards

    def meta(self, **changes: Any) -> Path:
        """Change what the checkpoint says of itself."""
        path = self.checkpoint / "0" / "meta" / "metadata"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
        return self.checkpoint

    def prepare(self) -> Path:
        """Make shards of `data`, elsewhere."""
        return prepare(self.data, self.root / "anew", progress=False)

    def read_all(self) -> None:
        """Open the shards and verify each."""
        open_dataset(self.shards, progress=False, verify=True)


def make_world(root: Path) -> World:
    """Write the healthy files."""
    world = World(root)
    write_dataset(world.data, RECORDS, seed=0, progress=False)
    prepare(world.data, world.shards, progress=False)
    with Checkpoints(world.checkpoint) as checkpoints:
        variables = jax.jit(partial(init_variables, create_model(MODEL, CONFIG)))(jax.random.key(0))
        checkpoints.save(meta(), variables=variables)
    write_keras(world.weights)
    return world


def copy_world(pristine: World, root: Path) -> World:
    """The same files elsewhere, to be spoiled."""
    shutil.copytree(pristine.root, root)
    return World(root)


def meta() -> Meta:
    """What a checkpoint of the tiny network says of itself."""
    scaler = {"mean": 0.0, "std": 0.25}
    return Meta(MODEL, dataclasses.asdict(CONFIG), list(SUPERCLASSES), list(LEADS), 100, scaler)


def classifier() -> Classifier:
    """A network without weights: what it refuses it refuses before it needs them."""
    return Classifier(meta(), {})


def write_keras(path: Path) -> None:
    """Weights of the tiny network as keras writes them."""
    shapes = abstract_variables(create_model(MODEL, CONFIG))
    names = []
    with h5py.File(path, "w") as file:
        for number, layer in enumerate(LAYOUTS[MODEL](CONFIG)):
            name = f"{layer.kind}_{number}"
            inner = []
            for index, leaf in enumerate(KERAS_LEAVES[layer.kind]):
                node = shapes[leaf.collection]
                for key in (*layer.path, leaf.name):
                    node = node[key]
                shape = node.shape if leaf.axes is None else tuple(node.shape[axis] for axis in np.argsort(leaf.axes))
                inner.append(f"{name}/{index}/{leaf.source}:0")
                file[f"{name}/{inner[-1]}"] = np.full(shape, 0.5, np.float32)
            file[name].attrs["weight_names"] = inner
            names.append(name)
        file.attrs["layer_names"] = names


def npy_claiming(shape: tuple[int, ...], descr: str = "<f8") -> bytes:
    """The header of a `.npy` file, without what it promises."""
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()
