"""How fast do own recordings become shards, and does the memory stay flat?

    python -m benchmarks.recordings [--records 1000 4000] [--workers 1 2] [--out FILE]

Synthetic 12-lead WFDB recordings of 10 s at 500 Hz, in format 16, a hundred different ones linked under as many names as are
asked for. Each count is prepared in a process of its own, which says how much memory it took at most.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.parts.machine import machine
from experiments.cli import Parser, execute, positive_int
from imlenet_jax.data.heart import dipole, healthy, sinus_rhythm, twelve_leads
from imlenet_jax.data.ptbxl import LEADS, SECONDS
from imlenet_jax.files import write_json

RATE, DIFFERENT = 500, 100
PREPARE = """
import json, resource, sys
from pathlib import Path
from imlenet_jax.data.listing import read_listing
from imlenet_jax.data.own import Shape, prepare_own
if __name__ == "__main__":
    done = prepare_own(read_listing(Path(sys.argv[1])), Path(sys.argv[2]), Shape(), int(sys.argv[3]), progress=False)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"records": done.records, "seconds": done.seconds, "peak_mb": peak / 1024}))
"""


def main() -> None:
    """Parse the flags and run."""
    parser = Parser(prog="python -m benchmarks.recordings", description="Own recordings to shards: rate and memory.")
    parser.add_argument("--records", type=positive_int, nargs="+", default=[1000, 4000], help="recordings to prepare")
    parser.add_argument("--workers", type=positive_int, nargs="+", default=[1, 2], help="processes that read")
    parser.add_argument("--out", type=Path, help="write the results there as JSON")
    execute(parser, run)


def run(args: argparse.Namespace) -> None:
    """Measure, print, write."""
    results: dict[str, Any] = {"machine": machine("benchmarks.recordings"), "rows": []}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "prepare.py").write_text(PREPARE)
        for number in range(min(DIFFERENT, max(args.records))):
            write_recording(folder / "originals", f"e{number:03d}", number)
        for count in args.records:
            table = link_recordings(folder, count)
            for workers in args.workers:
                command = [sys.executable, folder / "prepare.py", table, folder / f"{count}-{workers}", str(workers)]
                told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
                row = {"workers": workers, **json.loads(told)}
                results["rows"].append(row)
                rate = row["records"] / row["seconds"]
                print(
                    f"{count} recordings, {workers} workers: {rate:,.0f} records/s, {row['peak_mb']:.0f} MB", flush=True
                )
    if args.out:
        write_json(args.out, results)
        print(f"written: {args.out}")


def write_recording(folder: Path, name: str, seed: int) -> None:
    """A heart of its own, at 500 Hz, as WFDB stores it."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    heart = healthy(rng)
    rhythm = sinus_rhythm(heart, SECONDS, rng)
    signal = twelve_leads(dipole(heart, rhythm, SECONDS * RATE, RATE) @ heart.lead_vectors.T)
    signal += twelve_leads(rng.normal(0, 0.005, (len(signal), 8)))
    steps = np.round(1000 * signal).astype("<i2")
    (folder / f"{name}.dat").write_bytes(steps.tobytes())
    sums = steps.sum(axis=0, dtype=int) % 65536
    lines = [f"{name} {len(LEADS)} {RATE} {len(steps)}"]
    lines += [f"{name}.dat 16 1000/mV 16 0 0 {total} 0 {lead}" for lead, total in zip(LEADS, sums, strict=True)]
    (folder / f"{name}.hea").write_text("\n".join(lines) + "\n")


def link_recordings(folder: Path, count: int) -> Path:
    """A table of so many recordings, each a link to one of those that there are."""
    originals = sorted((folder / "originals").glob("*.hea"))
    rows = ["record,A"]
    for number in range(count):
        original = originals[number % len(originals)]
        place = folder / f"links-{count}" / f"{number // len(originals):05d}"
        place.mkdir(parents=True, exist_ok=True)
        for suffix in (".hea", ".dat"):
            (place / original.name).with_suffix(suffix).symlink_to(original.with_suffix(suffix))
        rows.append(f"links-{count}/{place.name}/{original.stem},{number % 2}")
    path = folder / f"records-{count}.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


if __name__ == "__main__":
    main()
