"""Files that ECG machines and archives write: DICOM, SCP-ECG, HL7 aECG, GE MUSE XML, Philips XML, EDF and others.

Read by `ecgdatakit`, an extra, which is told by a file's content which format it is. Of a file only the leads, their rate and
their amplitudes are taken: names, dates and findings go nowhere, and no message of the reader is passed on, since it may quote
the file.
"""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from imlenet_jax.data.records import MAX_VALUES
from imlenet_jax.errors import UserError

SUFFIXES = (".dcm", ".dicom", ".scp", ".ecg", ".xml", ".aecg", ".edf", ".mwf", ".xle", ".arc")
"""Those that are looked for in a folder; a file that is named may have any other."""

MAX_BYTES = 2**28
_RESTORE = "restore the file or leave it out"


class Clinical(NamedTuple):
    """A recording from such a file.

    Attributes:
        kind: what the format is called.
        signal: (samples, leads) float64 in mV; NaN where samples are missing.
        sampling_rate: Hz.
        leads: names of the columns.
        notes: what the reader had to assume.
    """

    kind: str
    signal: np.ndarray
    sampling_rate: float
    leads: tuple[str, ...]
    notes: tuple[str, ...]


def read_clinical(path: Path) -> Clinical:
    """Read a file of an ECG machine.

    Raises:
        UserError: it is of no format that is known, damaged or too large, has no rhythm strip, or does not say how many
            steps a mV has; or the extra is not installed.
    """
    try:
        from ecgdatakit.exceptions import UnsupportedFormatError
        from ecgdatakit.parsing import FileParser
    except ImportError:
        raise UserError(
            f"{path} is no WFDB record, .csv or .npy file; for the formats of ECG machines: pip install 'imlenet_jax[formats]'"
        ) from None
    if (size := path.stat().st_size) > MAX_BYTES:
        raise UserError(f"{path} has {size:,} bytes, more than {MAX_BYTES:,}: cut it into parts")
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            record = FileParser.parse(path)
        except UnsupportedFormatError:
            raise UserError(f"{path} is of no format that is known here: save it as DICOM, WFDB or .csv") from None
        except ImportError as error:
            raise UserError(f"{path} needs {error.name}: pip install 'imlenet_jax[formats]'") from None
        except Exception as error:  # each of twelve readers fails in ways of its own, and may quote what it read
            raise UserError(
                f"{path} is damaged, or of a kind that cannot be read ({type(error).__name__}): {_RESTORE}"
            ) from None
    kind = str(record.file_format.name)
    leads = [lead for lead in record.leads if len(lead.samples)]
    _check(path, kind, leads)
    signal = np.stack([np.asarray(lead.samples, np.float64) for lead in leads], axis=1)
    notes = (f"read as {kind}", *_notes({warning.category.__name__ for warning in warned}))
    return Clinical(kind, signal, float(leads[0].sampling_rate), tuple(lead.label for lead in leads), notes)


def _check(path: Path, kind: str, leads: list[Any]) -> None:
    """Refuse what is no recording of several leads at one rate, in a unit of voltage."""
    if not leads:
        raise UserError(f"{path} ({kind}) holds no rhythm strip: export the whole recording")
    lengths, rates = {len(lead.samples) for lead in leads}, {lead.sampling_rate for lead in leads}
    if len(rates) > 1:
        raise UserError(
            f"{path} ({kind}) has leads of {', '.join(map(str, sorted(rates)))} Hz: export them at one rate"
        )
    if len(lengths) > 1:
        raise UserError(f"{path} ({kind}) has leads of {min(lengths):,} to {max(lengths):,} samples: {_RESTORE}")
    if max(lengths) * len(leads) > MAX_VALUES:
        raise UserError(f"{path} ({kind}) has more than {MAX_VALUES:,} values: cut it into parts")
    unscaled = [lead.label for lead in leads if lead.is_raw or lead.units != "mV"]
    if unscaled:
        raise UserError(f"{path} ({kind}) does not say how many mV a step of {', '.join(unscaled)} is: {_RESTORE}")


def _notes(categories: set[str]) -> Iterator[str]:
    """What a reader's warnings come to, in words of our own."""
    if "ChecksumWarning" in categories:
        yield "the file's checksum is not that of its contents: is the file whole?"
    if categories - {"ChecksumWarning"}:
        yield "its reader had to leave something out or assume it: compare the signal with a print"
