"""One command for all: `imlenet train --model mousavi` is `python -m experiments.train --model mousavi`."""

import argparse
import importlib
import importlib.metadata
import os
import sys
from typing import NoReturn

from experiments.cli import AS_COMMAND, Parser
from imlenet_jax.version import __version__

COMMANDS = {
    "First, data": {
        "prepare": "PTB-XL, or your own recordings, to int16 shards.",
        "index": "A records.csv for recordings without one.",
        "labels": "Audit the labels of a data set.",
        "synthesize": "Synthetic ECGs in PTB-XL's layout.",
    },
    "Then a network": {
        "train": "Train a network on PTB-XL.",
        "test": "Test a trained network.",
        "compare": "Paired bootstrap of tested networks.",
        "leaderboard": "Train, test and compare networks in one table.",
        "convert": "Original weights to a checkpoint.",
    },
    "And what it says": {
        "inference": "Predict and explain ECGs. For research, not for diagnosis.",
        "attention": "The attention of imle_net over a split.",
        "export": "A trained network as a file, checked.",
    },
}
DESCRIPTIONS = {name: text for commands in COMMANDS.values() for name, text in commands.items()}
SHELLS = ("bash", "zsh", "tcsh")


def main() -> NoReturn:
    """Run a command in the place of this process, or say which there are."""
    name, *flags = sys.argv[1:] or ["--help"]
    if name in DESCRIPTIONS:
        # -P: a folder of this name where the user happens to be is not the package.
        os.environ[AS_COMMAND] = "1"
        os.execv(sys.executable, [sys.executable, "-P", "-m", f"experiments.{name}", *flags])
    if name in ("-h", "--help"):
        print(describe())
    elif name == "--version":
        versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in ("jax", "flax", "numpy"))
        print(f"imlenet {__version__} ({versions}, Python {sys.version.split()[0]})")
    elif name == "completion" and flags and flags[0] in SHELLS:
        print(completion(flags[0]))
    elif name == "completion":
        _complain(f"imlenet completion takes the name of a shell: {', '.join(SHELLS)}")
    else:
        _complain(f"'{name}' is no command: choose one of {', '.join(DESCRIPTIONS)}, completion (see imlenet --help)")
    sys.exit(0)


def describe() -> str:
    """The map of all commands."""
    lines = ["usage: imlenet COMMAND [flags]     imlenet COMMAND --help     imlenet --version", ""]
    for title, commands in COMMANDS.items():
        lines += [f"{title}:", *(f"  {name:12}{text}" for name, text in commands.items()), ""]
    lines += ["For the shell:", f"  completion  {'|'.join(SHELLS)}: a script that completes commands and flags.", ""]
    return "\n".join(
        [*lines, "An afternoon: imlenet train --data_dir synthetic --model mousavi --epochs 3, then imlenet test."]
    )


def completion(shell: str) -> str:
    """The script that makes a shell complete commands and flags."""
    try:
        import shtab
    except ImportError:
        _complain("imlenet completion needs shtab: pip install 'imlenet_jax[completion]'")
    text: str = shtab.complete(make_parser(), shell)
    return text


def make_parser() -> argparse.ArgumentParser:
    """All commands as one parser."""
    parser = argparse.ArgumentParser(prog="imlenet")
    parser.add_argument("--version", action="store_true", help="print versions")
    subparsers = parser.add_subparsers()
    for name, text in DESCRIPTIONS.items():
        parent: Parser = importlib.import_module(f"experiments.{name}").make_parser()
        subparsers.add_parser(name, parents=[parent], add_help=False, help=text)
    return parser


def _complain(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
