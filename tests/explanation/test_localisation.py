"""Localisation: shares of known maps, the truth's leads, and infarctions moved in the same heart."""

import json

import numpy as np
import pytest

from imlenet_jax.data.ptbxl import LEADS
from imlenet_jax.errors import UserError
from imlenet_jax.explanation.localisation import affected_leads, find_truth, lead_shares, moved_infarcts, read_truth

TRUTH = {
    "7": {
        "signs": [
            {"statement": "IMI", "finding": "Q wave", "leads": ["II", "aVF"]},
            {"statement": "IMI", "finding": "ST depression", "leads": ["aVL"]},
            {"statement": "CRBBB", "finding": "broad S", "leads": ["I"]},
        ]
    },
    "9": {"signs": []},
}


def test_a_perfect_map_has_all_its_mass_on_the_affected_leads():
    mask = affected_leads(TRUTH, np.array([7, 9]), LEADS, "IMI")
    assert {name: [LEADS[i] for i in np.flatnonzero(rows[0])] for name, rows in mask.items()} == {
        "IMI": ["II", "aVL", "aVF"],
        "IMI: Q wave": ["II", "aVF"],
        "IMI: ST depression": ["aVL"],
    }
    assert not mask["IMI"][1].any()
    perfect = np.repeat(mask["IMI"][:1, :, None], 30, axis=2) * -2.0  # magnitude counts, not sign
    assert (lead_shares(perfect) * mask["IMI"][:1]).sum() == 1
    even = lead_shares(np.ones((1, 12, 30)))
    assert (even * mask["IMI"][:1]).sum() == pytest.approx(3 / 12)
    assert np.isnan(lead_shares(np.zeros((1, 12, 30)))).all()
    with pytest.raises(UserError, match=r"truth\.json has no record 8"):
        affected_leads(TRUTH, np.array([8]), LEADS, "IMI")


def test_truth_is_found_beside_the_data_and_beside_its_shards(synthetic_shards, tmp_path):
    path = synthetic_shards.parent / "truth.json"
    assert find_truth(synthetic_shards) == find_truth(synthetic_shards.parent) == path
    assert find_truth(tmp_path / "elsewhere") is None
    truth = read_truth(path)
    assert len(truth) == 80 and {"signs", "statements"} <= set(truth["1"])
    (tmp_path / "truth.json").write_text(json.dumps({"version": 1}))
    with pytest.raises(UserError, match="make the data set again"):
        read_truth(tmp_path / "truth.json")


def test_a_moved_infarct_changes_the_heart_and_not_the_noise():
    anterior, inferior = moved_infarcts(3, seed=1)
    assert anterior.shape == inferior.shape == (3, 1000, 12) and anterior.dtype == np.float32
    np.testing.assert_array_equal(moved_infarcts(1, seed=1)[0][0], anterior[0])
    # Millivolts: QRS of half a millivolt to a few.
    assert 0.3 < np.abs(anterior).max() < 8
    q_in_avf = inferior[:, :, LEADS.index("aVF")].min(axis=1) < anterior[:, :, LEADS.index("aVF")].min(axis=1)
    r_in_v2 = anterior[:, :, LEADS.index("V2")].max(axis=1) != inferior[:, :, LEADS.index("V2")].max(axis=1)
    assert q_in_avf.all() and r_in_v2.all()
