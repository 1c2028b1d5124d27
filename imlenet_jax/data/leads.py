"""The names of leads, and which limb leads follow from which: by Einthoven and Goldberger, any two give all six."""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from imlenet_jax.data.ptbxl import LEADS
from imlenet_jax.errors import UserError

# Each limb lead as a sum of I and II: III = II - I, aVR = -(I + II) / 2, aVL = I - II / 2, aVF = II - I / 2.
LIMB = {"I": (1, 0), "II": (0, 1), "III": (-1, 1), "aVR": (-0.5, -0.5), "aVL": (1, -0.5), "aVF": (-0.5, 1)}

_STANDARD = {lead.casefold(): lead for lead in LEADS}
# What devices write before a name ("Lead II", "MDC_ECG_LEAD_AVR", "ECG aVL") and after it ("V1 [mV]", "I (uV)"). A sign is
# no decoration: -aVR is the inverse of aVR.
_DECORATION = re.compile(
    r"(?:mdc[\s_]*)?(?:e[ck]g[\s_.:]*)?(?:lead[\s_.:]*)?(.*?)(?:\s*[\[(](?P<unit>[^\])]*)[\])])?", re.IGNORECASE
)


def parse_lead(text: str) -> str | None:
    """The standard lead that a name stands for, in the spelling of LEADS; None for all others (MLII, V7, -aVR).

    Case, spaces and the words "lead" and "ECG" do not matter: AVR, avr, "Lead aVR", "aV R" and MDC_ECG_LEAD_AVR are aVR.
    """
    match = _DECORATION.fullmatch(text.strip().strip("'\""))
    return _STANDARD.get("".join(match[1].split()).casefold()) if match else None


def unit_of(text: str) -> str | None:
    """The unit that a name has in brackets: uV of "V1 (uV)"; None where there is none."""
    match = _DECORATION.fullmatch(text.strip())
    return match["unit"] if match else None


def parse_leads(names: Sequence[str], lead_map: Mapping[str, str] | None = None) -> dict[str, int]:
    """Where each standard lead is among `names`; names that are none are left out.

    Args:
        names: as a file spells them.
        lead_map: what to take a name for that is not standard, such as `{"MLII": "II"}`.

    Raises:
        UserError: two names stand for one lead.
    """
    mapped = {name.strip().casefold(): lead for name, lead in (lead_map or {}).items()}
    places: dict[str, int] = {}
    for place, name in enumerate(names):
        lead = parse_lead(mapped.get(name.strip().casefold(), name))
        if lead is None:
            continue
        if lead in places:
            raise UserError(f"both {names[places[lead]]!r} and {name!r} are lead {lead}: keep one of them")
        places[lead] = place
    return places


def derivation(lead: str, given: Sequence[str]) -> dict[str, float] | None:
    """A limb lead as a weighted sum of two of the `given` leads, the first two in the order of LEADS; None if it is none."""
    sources = [name for name in LIMB if name in given][:2]
    if lead not in LIMB or len(sources) < 2:
        return None
    matrix = np.array([LIMB[name] for name in sources], float).T
    weights = np.linalg.solve(matrix, np.array(LIMB[lead], float))
    return {name: float(weight) for name, weight in zip(sources, weights, strict=True)}
