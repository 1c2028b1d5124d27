"""The manifest: it comes back as written, and anything else is refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imlenet_jax.data.manifest import MANIFEST, canonical, read_manifest, write_manifest
from imlenet_jax.errors import UserError

CONTENT = {"sampling_rate": 100, "ecg_id": [1, 2], "name": "Überleitung", "scaler": {"mean": -0.1, "std": 1e-300}}


def test_comes_back_as_written(tmp_path):
    write_manifest(tmp_path / "new", CONTENT)
    content = read_manifest(tmp_path / "new")
    assert {key: content[key] for key in CONTENT} == CONTENT
    assert (content["format"], content["version"]) == ("imlenet_jax shards", 1)
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
    "old, new", [('"sampling_rate":100', '"sampling_rate":500'), ("[1,2]", "[1, 2]"), ("}}", "}} ")]
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
    monkeypatch.setattr("imlenet_jax.data.manifest.VERSION", 2)
    write_manifest(tmp_path, CONTENT)
    monkeypatch.undo()
    with pytest.raises(
        UserError, match=r"is of version 2, but this program reads version 1: delete the folder and run"
    ):
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
