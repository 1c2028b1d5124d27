"""What is refused, and with which words: one table of bad input for the tests and for `python -m benchmarks.bad_input`."""

import re
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.bad_input.data import DATA, Case
from benchmarks.bad_input.own import OWN
from benchmarks.bad_input.use import USE
from benchmarks.bad_input.world import World, copy_world, make_world
from imlenet_jax.errors import DataWarning, UserError

CASES: tuple[Case, ...] = DATA + OWN + USE
ENDS = ("refused", "warned", "accepted", "crashed")
HOSTILE = {  # by intent, where the others may be an accident: to run code, to reach other files, to fill the memory
    ("ptbxl_database.csv", "scp_codes call a function"),
    ("ptbxl_database.csv", "a record outside the folder"),
    (".hea", "is of a megabyte"),
    (".hea", "a file above its folder"),
    ("own .hea", "points out of its folder"),
    ("own .hea", "30 billion samples"),
    (".csv", "a first row without end"),
    (".npy", "a pickle"),
    ("records.csv", "a path outside the root"),
    ("records.csv", "an absolute path"),
    (".npy", "claims a terabyte"),
    ("manifest.json", "a shard outside the folder"),
    (".h5", "an array in another file"),
    (".npz", "unpacks to far more"),
}


class Ending(NamedTuple):
    """How a case ended.

    Attributes:
        how: `refused` in one sentence, `warned` of, `accepted` as if nothing were wrong, or `crashed`.
        said: the sentence, or the exception.
        expected: whether that is the sentence of the case.
        seconds: from spoiling to the end.
    """

    how: str
    said: str
    expected: bool
    seconds: float


def attempt(case: Case, world: World) -> Ending:
    """Spoil one thing in a world of its own and use it."""
    start = time.perf_counter()
    how, said = "accepted", ""
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        try:
            case.use(world)
        except UserError as error:
            how, said = "refused", str(error)
        except DataWarning as warning:
            how, said = "warned", str(warning)
        except Exception as error:
            how, said = "crashed", f"{type(error).__name__}: {error}"
    one_sentence = "\n" not in said and how in ("refused", "warned")
    expected = one_sentence and re.search(case.sentence, said) is not None
    return Ending(how, said, expected, time.perf_counter() - start)


def run() -> dict[str, Any]:
    """Try every case: how many ended how, and each one's ending, in JSON types."""
    cases = []
    with tempfile.TemporaryDirectory() as name:
        pristine = make_world(Path(name) / "pristine")
        for number, case in enumerate(CASES):
            world = copy_world(pristine, Path(name) / str(number))
            ending = attempt(case, world)
            said = ending.said.replace(f"{world.root}/", "").replace(str(world.root), ".")
            cases.append({"file": case.file, "defect": case.defect, **ending._asdict(), "said": said[:300]})
    ends = [case["how"] for case in cases]
    counts = {how: ends.count(how) for how in ENDS}
    return {
        "tried": len(cases),
        **counts,
        "as_expected": sum(case["expected"] for case in cases),
        "slowest_seconds": max(case["seconds"] for case in cases),
        "cases": cases,
    }


def hostile_endings(results: dict[str, Any]) -> list[str]:
    """How the hostile files among the cases of `run` ended."""
    return [case["how"] for case in results["cases"] if (case["file"], case["defect"]) in HOSTILE]
