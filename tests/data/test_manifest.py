"""The manifest: it comes back as written, and anything else is refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imlenet_jax.data.manifest import MANIFEST, canonical, read_manifest, write_manifest
from imlenet_jax.data.ptbxl import SUPERCLASSES
from imlenet_jax.errors import UserError

CONTENT = {
    "fingerprint": "Überleitung",
    "scaler": {"mean": -0.1, "std": 1e-300},
    "source": {"name": "PTB-XL", "missing": []},
    "sampling_rate": 100,
    "length": 1000,
    "leads": ["I", "II"],
    "tasks": {"superclass": {"classes": list(SUPERCLASSES), "statements": {"IMI": "MI"}}},
    "about": {"age": ["56", ""]},
    "ecg_id": [1, 2],
    "patient_id": [7, 7],
    "fold": [3, 3],
    "scp_codes": [{"IMI": 80}, {}],
    "calibrations": [{"gain": [1000.0, 200.5], "baseline": [0, -4]}],
    "calibration": [0, 0],
    "shards": [{"file": "shard-00000.npy", "records": 2, "crc32": "00c0ffee"}],
}


def test_comes_back_as_written(tmp_path):
    write_manifest(tmp_path / "new", CONTENT)
    content = read_manifest(tmp_path / "new")
    assert {key: content[key] for key in CONTENT} == CONTENT
    assert (content["format"], content["version"]) == ("imlenet_jax shards", 2)
    assert len(content["checksum"]) == 64
    assert [path.name for path in (tmp_path / "new").iterdir()] == [MANIFEST]


def test_is_strict_json(tmp_path):
    with pytest.raises(ValueError):
        write_manifest(tmp_path, {"mean": float("nan")})
    assert not list(tmp_path.iterdir())


def test_missing(tmp_path):
    with pytest.raises(UserError, match=r"there is no .*manifest.json: run python -m experiments.prepare first"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    "old, new", [('"sampling_rate":100', '"sampling_rate":500'), ("[1,2]", "[1, 2]"), ("}]}", "}]} ")]
)
def test_edited_by_hand(tmp_path, old, new):
    write_manifest(tmp_path, CONTENT)
    path = tmp_path / MANIFEST
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(UserError, match=r"manifest.json does not match its own checksum: delete the folder and run"):
        read_manifest(tmp_path)


def test_rewritten_by_another_json_writer(tmp_path):
    write_manifest(tmp_path, CONTENT)
    path = tmp_path / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text())))
    with pytest.raises(UserError, match="does not match its own checksum"):
        read_manifest(tmp_path)


def test_another_version(tmp_path, monkeypatch):
    monkeypatch.setattr("imlenet_jax.data.manifest.VERSION", 3)
    write_manifest(tmp_path, CONTENT)
    monkeypatch.undo()
    with pytest.raises(
        UserError, match=r"is of version 3, but this program reads version 2: delete the folder and run"
    ):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    "name, value",
    [
        ("sampling_rate", 10**9),
        ("sampling_rate", True),
        ("length", 10**12),
        ("leads", ["I", "I"]),
        ("leads", []),
        ("tasks", {}),
        ("tasks", {"own": {"classes": ["A", "A"], "statements": {}}}),
        ("tasks", {"own": {"classes": ["A"], "statements": {"IMI": "XYZ"}}}),
        ("about", {"age": ["56"]}),
        ("ecg_id", [1, 2**63]),
        ("patient_id", [7]),
        ("fold", [3, 11]),
        ("calibration", [0, 1]),
        ("calibration", [0, -1]),
        ("scp_codes", [{"IMI": "80"}, {}]),
        ("scp_codes", [{}]),
        ("gain", {"calibrations": [{"gain": [0, 1], "baseline": [0, 0]}]}),
        ("baseline", {"calibrations": [{"gain": [1, 1], "baseline": [0, 2**40]}]}),
        ("scaler", {"mean": 0, "std": -1}),
        ("source", {"name": 5, "missing": []}),
        ("fingerprint", None),
        ("file", {"shards": [{"file": "../shard-00000.npy", "records": 2, "crc32": "00c0ffee"}]}),
        ("crc32", {"shards": [{"file": "shard-00000.npy", "records": 2, "crc32": "-00c0ffe"}]}),
        ("records", {"shards": [{"file": "shard-00000.npy", "records": 3, "crc32": "00c0ffee"}]}),
        ("records", {"shards": []}),
    ],
)
def test_a_manifest_made_to_deceive_is_refused_by_its_entry(tmp_path, name, value):
    changed = {name: value} if name in CONTENT else value
    write_manifest(tmp_path, CONTENT | changed)  # with a checksum that holds
    with pytest.raises(UserError, match=rf"manifest\.json has an entry that no shards have \(.*{name}"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("name", CONTENT)
@pytest.mark.parametrize("value", [None, 5, "x", [[]], {"a": {}}])
def test_an_entry_of_another_kind_is_refused(tmp_path, name, value):
    if (name, value) in (("scaler", None), ("fingerprint", "x")):
        return
    write_manifest(tmp_path, CONTENT | {name: value})
    with pytest.raises(UserError, match="has an entry that no shards have"):
        read_manifest(tmp_path)


@given(data=st.binary() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(canonical))
def test_anything_else_is_refused(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("manifest")
    (folder / MANIFEST).write_bytes(data)
    with pytest.raises(UserError, match="is not a manifest of imlenet_jax shards, or is damaged"):
        read_manifest(folder)


def test_truncated(tmp_path):
    write_manifest(tmp_path, CONTENT)
    data = (tmp_path / MANIFEST).read_bytes()
    for size in range(len(data) - 2):
        (tmp_path / MANIFEST).write_bytes(data[:size])
        with pytest.raises(UserError, match="is damaged"):
            read_manifest(tmp_path)
