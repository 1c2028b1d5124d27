"""The page of results says what the committed files say."""

import argparse
import shutil

import pytest

from benchmarks.readme import FOLDER, RESULTS, page, run
from imlenet_jax.errors import UserError


def test_page_is_that_of_the_committed_results():
    assert (FOLDER / "README.md").read_text() == page(RESULTS), "run python -m benchmarks.readme"


def test_damaged_results_are_named(tmp_path):
    (tmp_path / "parity.json").write_text("[]")
    with pytest.raises(UserError, match=r"parity\.json is no result of benchmarks\.parity"):
        page(tmp_path)


def test_programs_before_and_after_are_drawn(tmp_path, capsys):
    for name in ("compiled_h100.json", "compiled_h100_before.json"):
        shutil.copy(RESULTS / name, tmp_path)
    run(argparse.Namespace(results=tmp_path, out=tmp_path / "README.md", records=tmp_path / "records"))
    assert (tmp_path / "compiled_h100.png").read_bytes().startswith(b"\x89PNG")
