"""Names of leads, and limb leads from limb leads."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imlenet_jax.data.heart import twelve_leads
from imlenet_jax.data.leads import LIMB, derivation, parse_lead, parse_leads, unit_of
from imlenet_jax.data.ptbxl import LEADS
from imlenet_jax.errors import UserError


@pytest.mark.parametrize(
    ("text", "lead"),
    [
        ("AVR", "aVR"),
        ("lead avr", "aVR"),
        ("MDC_ECG_LEAD_AVL", "aVL"),
        ("ECG aV F", "aVF"),
        ("I (uV)", "I"),
        ("'v1 [mV]'", "V1"),
        ("MLII", None),
        ("-aVR", None),
        ("V7", None),
        ("V10", None),
        ("Ⅱ", None),
        ("lead", None),
        ("", None),
    ],
)
def test_a_name_is_a_standard_lead_or_none(text, lead):
    assert parse_lead(text) == lead


@given(
    st.sampled_from(LEADS),
    st.sampled_from(["", "lead ", "Lead_", "ECG ", "MDC_ECG_LEAD_"]),
    st.sampled_from(["", " (mV)", "[uV]"]),
    st.sampled_from([str.upper, str.lower, str.title, str.swapcase]),
)
def test_every_spelling_of_a_lead_is_that_lead(lead, before, after, case):
    assert parse_lead(f" {case(before + lead)}{after} ") == lead


@given(st.text(max_size=20))
def test_any_text_is_a_lead_that_it_spells_or_none(text):
    lead = parse_lead(text)
    assert lead is None or lead.casefold() in "".join(text.split()).casefold()


def test_units_are_read_from_brackets():
    assert [unit_of(name) for name in ("V1 (uV)", "aVR [mV]", "II", "(")] == ["uV", "mV", None, None]


def test_leads_are_found_and_mapped():
    assert parse_leads(["time", "mlii", "V1"]) == {"V1": 2}
    assert parse_leads(["time", "mlii", "V1"], {"MLII": "II"}) == {"II": 1, "V1": 2}
    with pytest.raises(UserError, match="both 'II' and 'MLII' are lead II"):
        parse_leads(["II", "MLII"], {"MLII": "II"})


@pytest.mark.parametrize("given", list(itertools.combinations(LIMB, 2)))
def test_any_two_limb_leads_give_the_others(given):
    truth = dict(zip(LEADS, twelve_leads(np.random.default_rng(0).normal(size=(50, 8))).T, strict=True))
    for lead in LIMB:
        weights = derivation(lead, given)
        np.testing.assert_allclose(sum(w * truth[name] for name, w in weights.items()), truth[lead], atol=1e-12)


def test_einthoven_and_goldberger_are_exact():
    assert derivation("III", LEADS) == {"I": -1, "II": 1}
    assert derivation("aVR", ("II", "I")) == {"I": -0.5, "II": -0.5}
    assert derivation("aVL", ("I", "II")) == {"I": 1, "II": -0.5}
    assert derivation("II", ("I", "III", "V1")) == {"I": 1, "III": 1}
    assert derivation("V2", LEADS) is None
    assert derivation("aVL", ("I", "V1")) is None
