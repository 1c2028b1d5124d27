"""Pages that are not in this folder: all commands with their flags, made from their parsers, and the benchmarks.

A hook of mkdocs (`mkdocs.yml`).
"""

import argparse
import html
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

from experiments.__main__ import DESCRIPTIONS

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"


def on_files(files: Any, config: Any, **_: Any) -> Any:
    """Add the pages, and the figures of the benchmarks."""
    files.append(File.generated(config, "commands.md", content="\n".join(commands())))
    files.append(File.generated(config, "benchmarks.md", content=(BENCHMARKS / "README.md").read_text()))
    for name in ("CONTRIBUTING", "CHANGELOG"):
        files.append(File.generated(config, f"{name.lower()}.md", content=(ROOT / f"{name}.md").read_text()))
    for path in sorted((BENCHMARKS / "results").glob("*.png")):
        files.append(File.generated(config, f"results/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links between the folders of the repository, as links within the site."""
    markdown = markdown.replace("](../benchmarks/README.md", "](benchmarks.md").replace("](../benchmarks/", "](")
    return markdown.replace("](../docs/", "](").replace("](docs/", "](")


def commands() -> Iterator[str]:
    """The page, line by line."""
    yield "# Commands"
    yield ""
    yield "`imlenet COMMAND` is `python -m experiments.COMMAND`. A user's error is one sentence and exit status 2; 75 means stopped by"
    yield "a signal and saved. `imlenet completion bash` prints a script that completes all of this."
    for name, text in DESCRIPTIONS.items():
        yield from ("", f"## {name}", "", text, "", "| flag | default | |", "|---|---|---|")
        yield from flags(importlib.import_module(f"experiments.{name}").make_parser())


def flags(parser: argparse.ArgumentParser) -> Iterator[str]:
    """A row per flag."""
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        name = "`" + (", ".join(action.option_strings) or action.dest) + "`"
        unset = action.default in (None, [], {}, argparse.SUPPRESS)
        usual = "required" if action.required else "" if unset else f"`{shown(action.default)}`"
        choices = f": {', '.join(f'`{choice}`' for choice in action.choices)}" if action.choices else ""
        yield f"| {name} | {usual} | {cell(action.help or '')}{choices} |"


def shown(value: Any) -> str:
    """A default as it is typed."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def cell(text: str) -> str:
    """Text that cannot end its cell nor be taken for HTML."""
    return html.escape(text, quote=False).replace("|", "\\|")
