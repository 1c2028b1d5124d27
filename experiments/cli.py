"""What all commands share: flag types, one-sentence errors, exit statuses."""

import argparse
import errno
import itertools
import math
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from imlenet_jax.data.leads import parse_lead
from imlenet_jax.errors import UserError
from imlenet_jax.files import parse_json
from imlenet_jax.runtime.start import explain

_FULL = "free space there or choose another folder"
_CLOSED = "choose a folder that you may write to"
_IN_THE_WAY = "a file is where a folder is needed, or a folder where a file is: choose another path"
# What a user can do about an error of the file system. Any other is a mistake of ours and keeps its traceback.
ADVICE = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: _FULL,
    errno.EROFS: _CLOSED,
    errno.EACCES: _CLOSED,
    errno.EPERM: _CLOSED,
    errno.ENOTDIR: _IN_THE_WAY,
    errno.EISDIR: _IN_THE_WAY,
    errno.EEXIST: _IN_THE_WAY,
    errno.ENOENT: "it was there before or should be: restore it, or choose another path",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "too many are open, a shard needs one each: allow more with ulimit -n",
    errno.EIO: "the disk fails to read or write it: choose another one",
}

AS_COMMAND = "IMLENET_COMMAND"  # is set in the environment where a command was called as `imlenet <name>`
CHECKPOINTS, LOGS = Path("checkpoints"), Path("logs")


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one sentence and that accepts no abbreviated flags."""

    def __init__(self, **kwargs):
        if AS_COMMAND in os.environ:
            kwargs["prog"] = kwargs["prog"].replace("python -m experiments.", "imlenet ")
        super().__init__(allow_abbrev=False, formatter_class=argparse.ArgumentDefaultsHelpFormatter, **kwargs)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


def boolean(text: str) -> bool:
    """`True` or `False`, as the reference's flags spell it (yes/no, 1/0, t/f are taken too)."""
    if text.lower() in ("true", "t", "yes", "y", "1"):
        return True
    if text.lower() in ("false", "f", "no", "n", "0"):
        return False
    raise argparse.ArgumentTypeError(f"'{text}' is neither True nor False")


def auto_or_boolean(text: str) -> bool | str:
    """`auto`, `True` or `False`."""
    return text if text == "auto" else boolean(text)


def positive_int(text: str) -> int:
    """An integer of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of at least 1")
    return value


def seed(text: str) -> int:
    """A seed: an integer from 0 to 2**32 - 1."""
    if not (text.isascii() and text.isdigit()) or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 0 to 4294967295")
    return int(text)


def folds(text: str) -> tuple[int, ...]:
    """Folds of PTB-XL, as `1-8`, `9` or `1,3,5-7`: sorted numbers from 1 to 10."""
    numbers: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        if not (first.isascii() and first.isdigit() and (last or first).isascii() and (last or first).isdigit()):
            raise argparse.ArgumentTypeError(f"'{text}' is not a list of folds such as 1-8 or 9,10")
        low, high = int(first), int(last or first)
        if not 1 <= low <= high <= 10:
            raise argparse.ArgumentTypeError(f"'{text}' names folds outside 1 to 10, or a range that runs backwards")
        numbers.update(range(low, high + 1))
    return tuple(sorted(numbers))


def likelihood(text: str) -> float:
    """A likelihood of PTB-XL: a number from 0 to 100."""
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value <= 100:
        raise argparse.ArgumentTypeError(f"'{text}' is not a likelihood from 0 to 100")
    return value


def number(text: str) -> float:
    """A finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"'{text}' is not a finite number")
    return value


def positive_float(text: str) -> float:
    """A finite number above 0."""
    value = number(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number above 0")
    return value


def non_negative_float(text: str) -> float:
    """A finite number of at least 0."""
    value = number(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of at least 0")
    return value


def coverage(text: str) -> float:
    """A share from 0.5 to 0.999."""
    value = number(text)
    if not 0.5 <= value <= 0.999:
        raise argparse.ArgumentTypeError(f"'{text}' is not a share from 0.5 to 0.999, such as 0.9")
    return value


def json_object(text: str) -> dict:
    """An object in JSON, such as a network's configuration."""
    try:
        value = parse_json(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        shown = text if len(text) <= 60 else f"{text[:57]}..."
        raise argparse.ArgumentTypeError(f"'{shown}' is not a JSON object such as '{{\"lstm_units\": 32}}'")
    return value


def names(text: str) -> tuple[str, ...]:
    """Names with commas between."""
    return tuple(name.strip() for name in text.split(","))


def lead_map(text: str) -> dict[str, str]:
    """What names stand for which lead, as `MLII=II,V5R=V5`."""
    pairs = [part.partition("=")[::2] for part in text.split(",")]
    for name, lead in pairs:
        if not name.strip() or parse_lead(lead) is None:
            raise argparse.ArgumentTypeError(f"'{text}' is not a list of NAME=LEAD such as MLII=II")
    return {name.strip(): lead.strip() for name, lead in pairs}


def add_data_flags(parser: Parser) -> None:
    """The flags of whatever works on a data set: which records, with which labels, and whose checkpoints."""
    parser.add_argument(
        "--data_dir",
        default="data/ptb",
        help="PTB-XL folder, or shards made by experiments.prepare, or 'synthetic' for the embedded data set",
    )
    parser.add_argument("--batchsize", type=positive_int, default=32, help="records per step, over all devices")
    parser.add_argument("--val_folds", type=folds, default=(9,), help="folds that select the best epoch")
    parser.add_argument("--test_folds", type=folds, default=(10,), help="folds that are tested on")
    parser.add_argument(
        "--min_likelihood", type=likelihood, help="drop statements whose stated likelihood is below this, 0 to 100"
    )
    parser.add_argument(
        "--allow_missing", type=boolean, default=False, help="go on without records whose files are missing"
    )
    parser.add_argument("--verify", type=boolean, default=False, help="check every shard first, not at its first use")
    parser.add_argument("--checkpoint_dir", type=Path, default=CHECKPOINTS, help="<model>/ is made below it")


def cache_place(text: str) -> Path | bool:
    """A folder, or `True` or `False`."""
    return text == "True" if text in ("True", "False") else Path(text)


def add_cache_flag(parser: Parser) -> None:
    """`--compilation_cache`."""
    parser.add_argument(
        "--compilation_cache",
        type=cache_place,
        default=True,
        metavar="DIR|False",
        help="where compiled programs are kept for the next start; True: in the user's cache folder; False: nowhere",
    )


def add_precision_flag(parser: Parser, default: str | None = None) -> None:
    """`--precision`; without a default it is that of the checkpoint."""
    parser.add_argument(
        "--precision",
        choices=("default", "highest"),
        default=default,
        help="of float32 multiplications: the device's default (TF32 on a GPU, bfloat16 on a TPU), or true float32"
        + "; that of the checkpoint unless given" * (default is None),
    )


def check_folds(**folds: tuple[int, ...]) -> None:
    """Refuse folds that are meant to be apart and are not, such as `train_folds` and `test_folds`.

    Raises:
        UserError: names the first two flags that share a fold.
    """
    for (one, these), (other, those) in itertools.combinations(folds.items(), 2):
        shared = sorted(set(these) & set(those))
        if shared:
            raise UserError(f"--{one} shares fold {shared[0]} with --{other}: choose folds that are apart")


def add_run_flags(parser: Parser) -> None:
    """The flags that train and test share beside those of the data: where to log, on how many devices."""
    parser.add_argument("--log_dir", type=Path, default=LOGS, help="metrics and predictions go there")
    parser.add_argument("--num_devices", type=positive_int, help="devices to use; all of them by default")
    parser.add_argument(
        "--seed", type=seed, default=42, help="decides weights, order and dropout; of several, the first"
    )
    parser.add_argument("--seeds", type=positive_int, default=1, help="networks, from --seed on, one by one")


def add_checkpoint_flags(parser: Parser) -> None:
    """The flags of whatever reads a checkpoint: which of them, and which folds it is tried on."""
    parser.add_argument("--split", choices=("test", "val"), default="test", help="which folds")
    parser.add_argument("--which", choices=("best", "latest"), default="best", help="which checkpoint")


def run_name(model: str, seed: int | None = None, asked: str = "") -> str:
    """What checkpoints and logs of a run are called: the model, the seed where there are several, and what is asked."""
    return "_".join(filter(None, (model, "" if seed is None else f"seed{seed}", asked)))


def execute(parser: Parser, run: Callable[[argparse.Namespace], None], argv: list[str] | None = None) -> NoReturn:
    """Parse the flags, run the command and end the process: 0 done, 2 a user's error, 130 interrupted, 141 unread."""
    args = parser.parse_args(argv)
    warnings.showwarning = _one_line_warning
    sys.unraisablehook = _without_late_callbacks
    try:
        run(args)
        status = 0
    except UserError as error:
        status = _complain(str(error))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains when it flushes
        status = 128 + signal.SIGPIPE
    except OSError as error:
        if error.errno not in ADVICE:
            raise
        where = f" ({error.filename})" if error.filename else ""
        status = _complain(f"{os.strerror(error.errno)}{where}: {ADVICE[error.errno]}")
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not str(error).startswith("RESOURCE_EXHAUSTED"):  # JAX's MemoryError
            status = _complain(_why_jax_failed(error))
        else:
            status = _complain("the memory does not suffice: choose a smaller --batchsize or a smaller network")
    except Exception as error:
        status = _complain(_why_jax_failed(error))
    sys.exit(status)


def _why_jax_failed(error: Exception) -> str:
    """The sentence for an error of JAX's start; any other is a mistake of ours, and raised."""
    sentence = explain(error)
    if sentence is None:
        raise error
    return sentence


def _complain(message: str) -> int:
    # A name in a hostile file may hold line ends, or what a terminal takes for orders.
    message = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", lambda match: repr(match[0])[1:-1], message)
    print(f"error: {message}", file=sys.stderr)
    return 2


def _without_late_callbacks(unraisable) -> None:
    # After a failed save orbax closes its loop, and tensorstore still reports to it from threads of its own.
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def _one_line_warning(message, category, filename, lineno, file=None, line=None) -> None:
    print(f"warning: {message}", file=sys.stderr)
