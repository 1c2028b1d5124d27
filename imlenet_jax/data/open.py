"""Opening whatever `--data_dir` names: shards, a PTB-XL folder, or the embedded synthetic data set."""

import hashlib
import os
from pathlib import Path

from imlenet_jax.data.manifest import MANIFEST, read_manifest
from imlenet_jax.data.prepare import default_out, prepare
from imlenet_jax.data.ptbxl import DATABASE
from imlenet_jax.data.shards import Dataset, open_shards
from imlenet_jax.data.tasks import SUPERCLASS
from imlenet_jax.errors import UserError

SYNTHETIC = "synthetic"
SYNTHETIC_FOLDER = Path("data") / "synthetic"
SYNTHETIC_RECORDS = 1500
SYNTHETIC_SEED = 0


def open_dataset(
    data_dir: str | Path,
    sampling_rate: int = 100,
    allow_missing: bool = False,
    progress: bool = True,
    verify: bool = False,
) -> Dataset:
    """Open shards; a PTB-XL folder is prepared first, once.

    Args:
        data_dir: shards; or a PTB-XL folder (its shards go under it, or under the user's cache folder where it is
            read-only); or `synthetic`, the embedded data set, made under `data/synthetic` on first use.
        sampling_rate: of a PTB-XL folder, Hz. Shards have their own.
        allow_missing: go on without records whose files are missing.
        progress: show progress bars.
        verify: compare every shard with its checksum now, not each at its first use.

    Raises:
        UserError: there is no such folder, it is neither of these, or its data cannot be used.
    """
    dataset = open_shards(_shards(data_dir, sampling_rate, allow_missing, progress))
    if verify:
        dataset.verify()
    return dataset


def usual_task(data_dir: str | Path) -> str:
    """What is asked of `data_dir` unless flags say otherwise; found without preparing it.

    Raises:
        UserError: it holds a manifest that is damaged.
    """
    path = Path(data_dir)
    return next(iter(read_manifest(path)["tasks"])) if (path / MANIFEST).is_file() else SUPERCLASS


def _shards(data_dir: str | Path, sampling_rate: int, allow_missing: bool, progress: bool) -> Path:
    """The folder of shards, prepared if need be."""
    if str(data_dir) == SYNTHETIC:
        from imlenet_jax.data.synthetic import write_dataset  # needs pandas, which takes half a second

        write_dataset(SYNTHETIC_FOLDER, SYNTHETIC_RECORDS, SYNTHETIC_SEED, progress)
        data_dir = SYNTHETIC_FOLDER
    data_dir = Path(data_dir)
    if not data_dir.is_dir():
        raise UserError(f"--data_dir {data_dir}: no such folder; name a PTB-XL folder, shards, or '{SYNTHETIC}'")
    if (data_dir / MANIFEST).is_file():
        return data_dir
    if not (data_dir / DATABASE).is_file():
        raise UserError(f"--data_dir {data_dir} has neither {DATABASE} nor {MANIFEST}: name a PTB-XL folder or shards")
    out = shards_folder(data_dir, sampling_rate)
    return prepare(data_dir, out, sampling_rate, allow_missing=allow_missing, progress=progress)


def shards_folder(data_dir: Path, sampling_rate: int) -> Path:
    """Where the shards of a PTB-XL folder go: under it, or under the user's cache folder where it is read-only."""
    out = default_out(data_dir, sampling_rate)
    if (out / MANIFEST).is_file() or _writable(out if out.is_dir() else data_dir):
        return out
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = hashlib.sha256(str(data_dir.resolve()).encode()).hexdigest()[:16]
    return cache / "imlenet_jax" / name / out.name


def _writable(folder: Path) -> bool:
    # Root may write anywhere, but what all permissions call read-only is meant to stay as it is.
    return os.access(folder, os.W_OK) and bool(folder.stat().st_mode & 0o222)
