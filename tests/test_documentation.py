"""Links between pages lead somewhere, and every page is on the site."""

import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest

from imlenet_jax.evaluation.comparison import read_predictions
from imlenet_jax.evaluation.leaderboard_tables import format_markdown
from imlenet_jax.evaluation.metrics import macro_auc

ROOT = Path(__file__).resolve().parents[1]
GENERATED = {"commands.md"}  # by docs/site.py
OTHERS = {"benchmarks.md", "changelog.md", "contributing.md", "tutorial.ipynb"}
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), ROOT / "benchmarks" / "README.md"]


def anchors(page):
    """What can be linked to in a page."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        linked = page.parent / name if name else page
        assert linked.is_file() or name in GENERATED, f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(linked), f"{page.name} links to {target}"


def test_every_page_is_on_the_site():
    nav = re.findall(r": ([\w-]+\.(?:md|ipynb))$", (ROOT / "mkdocs.yml").read_text(), re.M)
    assert sorted(nav) == sorted({page.name for page in (ROOT / "docs").glob("*.md")} | GENERATED | OTHERS)


def test_the_table_of_results_is_that_of_the_runs_that_are_kept():
    folder = ROOT / "benchmarks" / "results" / "leaderboard"
    report = json.loads((folder / "table.json").read_text())
    assert format_markdown(report).split("\n\n")[1] in (ROOT / "docs" / "results.md").read_text()
    rows = report["tasks"][0]["rows"]
    for row in rows:
        runs = [read_predictions(path) for path in folder.glob(f"{row['network']}/seed*/logs/*_predictions.csv")]
        found = [macro_auc(run.labels, run.probabilities) for run in runs]
        assert len(found) == row["seeds"]
        if found:
            np.testing.assert_allclose(np.mean(found), row["auc"]["value"], rtol=1e-9)
    told = re.findall(r"^\| `(\w+)` \|.*\| (0\.\d+ \[.*?\])", (ROOT / "README.md").read_text(), re.M)
    known = {(row["model"], "{value:.3f} [{low:.3f}, {high:.3f}]".format(**row["auc"])) for row in rows if row["auc"]}
    assert len(told) == 7 and set(told) <= known


def test_the_tutorial_runs(tmp_path, monkeypatch, capsys):
    """With fewer records and one epoch; the stored outputs are of the cells as they stand."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("imlenet_jax.data.open.SYNTHETIC_RECORDS", 250)
    monkeypatch.setattr("matplotlib.pyplot.show", lambda: None)
    cells = json.loads((ROOT / "docs" / "tutorial.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    names: dict = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that so few records lack
        for cell in code:
            exec(cell.replace("epochs=3", "epochs=1"), names)
    shown = capsys.readouterr().out
    assert "250 records, 100 Hz" in shown and "macro_auc" in shown and "by sex" in shown
    assert len(names["explanation"].gradients[names["name"]]) == 12
    assert names["checked"]["largest_difference"]["probabilities"] < 1e-5
    stored = [output for cell in cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in stored) == 1
    assert not any(output["output_type"] == "error" for output in stored)
