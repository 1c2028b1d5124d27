"""The page of results says what the committed files say."""

import pytest

from benchmarks.readme import FOLDER, RESULTS, page
from imlenet_jax.errors import UserError


def test_page_is_that_of_the_committed_results():
    assert (FOLDER / "README.md").read_text() == page(RESULTS), "run python -m benchmarks.readme"


def test_damaged_results_are_named(tmp_path):
    (tmp_path / "parity.json").write_text("[]")
    with pytest.raises(UserError, match=r"parity\.json is no result of benchmarks\.parity"):
        page(tmp_path)
