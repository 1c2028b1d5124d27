"""Writers of what ECG machines write, as simple as each format allows, with a patient's name in every one."""

import base64
from pathlib import Path

import numpy as np

PATIENT, BORN = "Zwetschgenbaum", "19310203"
EIGHT = (0, 1, 6, 7, 8, 9, 10, 11)  # of the twelve leads: those that a GE machine stores


def write_dicom(path: Path, steps: np.ndarray, rate: int, leads, uv_per_step: float) -> None:
    """A 12-lead ECG object; `steps` (samples, leads) int16."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.sequence import Sequence
    from pydicom.uid import ExplicitVRLittleEndian, TwelveLeadECGWaveformStorage, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = TwelveLeadECGWaveformStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = Dataset()
    data.file_meta = meta
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.PatientName, data.PatientBirthDate, data.Modality = f"{PATIENT}^Anna", BORN, "ECG"
    group = Dataset()
    group.WaveformOriginality, group.MultiplexGroupLabel = "ORIGINAL", "RHYTHM"
    group.NumberOfWaveformChannels, group.NumberOfWaveformSamples = steps.shape[1], len(steps)
    group.SamplingFrequency = str(rate)
    group.ChannelDefinitionSequence = Sequence([_channel(lead, uv_per_step) for lead in leads])
    group.WaveformBitsAllocated, group.WaveformSampleInterpretation = 16, "SS"
    group.WaveformData = steps.astype("<i2").tobytes()
    data.WaveformSequence = Sequence([group])
    data.save_as(path, enforce_file_format=True)


def _channel(lead: str, uv_per_step: float):
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    channel, source, unit = Dataset(), Dataset(), Dataset()
    source.CodeValue, source.CodingSchemeDesignator, source.CodeMeaning = f"MDC_ECG_LEAD_{lead}", "MDC", f"Lead {lead}"
    unit.CodeValue, unit.CodingSchemeDesignator, unit.CodeMeaning = "uV", "UCUM", "microvolt"
    channel.ChannelSourceSequence = Sequence([source])
    channel.ChannelSensitivity, channel.ChannelSensitivityCorrectionFactor = str(uv_per_step), "1"
    channel.ChannelSensitivityUnitsSequence = Sequence([unit])
    channel.ChannelBaseline, channel.WaveformBitsStored = "0", 16
    return channel


def write_edf(path: Path, steps: np.ndarray, rate: int, leads, uv_per_step: float) -> None:
    """EDF with a data record per second."""
    count, seconds = len(leads), len(steps) // rate
    low, high = f"{-32768 * uv_per_step:.2f}"[:8], f"{32767 * uv_per_step:.2f}"[:8]
    assert abs(float(low) + 32768 * uv_per_step) < 1 and abs(float(high) - 32767 * uv_per_step) < 1

    def cells(values, width):
        return "".join(str(value).ljust(width)[:width] for value in values)

    header = cells(["0"], 8) + cells([f"X F 03-FEB-1931 {PATIENT}"], 80) + cells(["Startdate X X X X"], 80)
    header += "01.01.01" + "00.00.00" + cells([256 * (count + 1)], 8) + cells([""], 44)
    header += cells([seconds, 1], 8) + cells([count], 4)
    header += cells([f"ECG {lead}" for lead in leads], 16) + cells([""] * count, 80) + cells(["uV"] * count, 8)
    header += (
        cells([low] * count, 8) + cells([high] * count, 8) + cells([-32768] * count, 8) + cells([32767] * count, 8)
    )
    header += cells([""] * count, 80) + cells([rate] * count, 8) + cells([""] * count, 32)
    blocks = steps[: seconds * rate].reshape(seconds, rate, count).swapaxes(1, 2)
    path.write_bytes(header.encode("ascii") + blocks.astype("<i2").tobytes())


def write_aecg(path: Path, steps: np.ndarray, rate: int, leads, uv_per_step: float, beat: int = 0) -> None:
    """HL7 aECG; with `beat` samples of a representative beat, ten times as large, in a derived series."""

    def sequences(values, scale):
        yield (
            '<component><sequence><code code="TIME_ABSOLUTE" codeSystem="2.16.840.1.113883.5.4"/>'
            '<value xsi:type="GLIST_TS"><head value="20010101000000.000"/>'
            f'<increment value="{1 / rate:.10g}" unit="s"/></value></sequence></component>'
        )
        for lead, column in zip(leads, values.T, strict=True):
            digits = " ".join(map(str, column.tolist()))
            yield (
                f'<component><sequence><code code="MDC_ECG_LEAD_{lead.upper()}" codeSystem="2.16.840.1.113883.6.24"/>'
                f'<value xsi:type="SLIST_PQ"><origin value="0" unit="uV"/><scale value="{scale:g}" unit="uV"/>'
                f"<digits>{digits}</digits></value></sequence></component>"
            )

    def series(code, values, scale):
        body = "".join(sequences(values, scale))
        return f'<code code="{code}" codeSystem="2.16.840.1.113883.5.4"/><component><sequenceSet>{body}</sequenceSet></component>'

    derived = ""
    if beat:
        text = series("REPRESENTATIVE_BEAT", steps[:beat], 10 * uv_per_step)
        derived = f"<derivation><derivedSeries>{text}</derivedSeries></derivation>"
    path.write_text(
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<AnnotatedECG xmlns="urn:hl7-org:v3" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
        f"<componentOf><timepointEvent><componentOf><subjectAssignment><subject><trialSubject><subjectDemographicPerson>"
        f'<name>{PATIENT}</name><birthTime value="{BORN}"/></subjectDemographicPerson></trialSubject></subject>'
        "</subjectAssignment></componentOf></timepointEvent></componentOf>"
        f"<component><series>{series('RHYTHM', steps, uv_per_step)}{derived}</series></component></AnnotatedECG>"
    )


def write_muse(path: Path, steps: np.ndarray, rate: int, leads, uv_per_step: float, rhythm: bool = True) -> None:
    """GE MUSE XML: a median beat, and a rhythm strip of the eight leads that such machines store."""
    parts = [_waveform("Median", steps[: int(1.2 * rate)], rate, leads, uv_per_step)]
    if rhythm:
        parts.append(_waveform("Rhythm", steps, rate, leads, uv_per_step))
    path.write_text(
        f'<?xml version="1.0" encoding="ISO-8859-1"?><RestingECG><PatientDemographics><PatientLastName>{PATIENT}'
        f"</PatientLastName><DateofBirth>{BORN}</DateofBirth></PatientDemographics>{''.join(parts)}</RestingECG>"
    )


def _waveform(kind: str, steps: np.ndarray, rate: int, leads, uv_per_step: float) -> str:
    text = f"<Waveform><WaveformType>{kind}</WaveformType><NumberofLeads>8</NumberofLeads><SampleType>CONTINUOUS_SAMPLES</SampleType>"
    text += f"<SampleBase>{rate}</SampleBase><SampleExponent>0</SampleExponent>"
    for place in EIGHT:
        data = base64.b64encode(steps[:, place].astype("<i2").tobytes()).decode()
        text += (
            f"<LeadData><LeadByteCountTotal>{2 * len(steps)}</LeadByteCountTotal><LeadSampleCountTotal>{len(steps)}"
            f"</LeadSampleCountTotal><LeadAmplitudeUnitsPerBit>{uv_per_step:g}</LeadAmplitudeUnitsPerBit><LeadAmplitudeUnits>"
            f"MICROVOLTS</LeadAmplitudeUnits><LeadID>{leads[place]}</LeadID><LeadOffsetFirstSample>0</LeadOffsetFirstSample>"
            f"<FirstSampleBaseline>0</FirstSampleBaseline><LeadSampleSize>2</LeadSampleSize><WaveFormData>{data}</WaveFormData></LeadData>"
        )
    return text + "</Waveform>"


WRITERS = {".dcm": write_dicom, ".edf": write_edf, ".xml": write_muse, ".aecg": write_aecg}
