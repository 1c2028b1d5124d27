"""What `--data_dir` may name."""

import pytest

from imlenet_jax.data import open as opening
from imlenet_jax.data.open import open_dataset, shards_folder
from imlenet_jax.data.prepare import prepare
from imlenet_jax.data.synthetic import write_dataset
from imlenet_jax.errors import UserError


def test_a_ptbxl_folder_is_prepared_under_it_once(tiny_ptbxl):
    first = open_dataset(tiny_ptbxl.path, progress=False)
    assert first.path == tiny_ptbxl.path / "imlenet_shards_100"
    manifest = first.path / "manifest.json"
    before = manifest.stat().st_mtime_ns
    assert open_dataset(str(tiny_ptbxl.path), progress=False).fingerprint == first.fingerprint
    assert manifest.stat().st_mtime_ns == before


def test_prepared_shards_need_no_source(tiny_ptbxl, tmp_path):
    shards = prepare(tiny_ptbxl.path, tmp_path / "shards", progress=False)
    (tiny_ptbxl.path / "ptbxl_database.csv").unlink()
    assert len(open_dataset(shards)) == 24


def test_a_read_only_folder_is_prepared_in_the_cache(tiny_ptbxl, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tiny_ptbxl.path.chmod(0o555)
    try:
        dataset = open_dataset(tiny_ptbxl.path, progress=False)
        assert dataset.path.is_relative_to(tmp_path / "cache" / "imlenet_jax")
        assert dataset.path.name == "imlenet_shards_100"
        assert shards_folder(tiny_ptbxl.path, 100) == dataset.path
    finally:
        tiny_ptbxl.path.chmod(0o755)


def test_missing_records_may_be_allowed(tiny_ptbxl):
    tiny_ptbxl.file(0, ".dat").unlink()
    with pytest.raises(UserError, match="1 of 24 records"):
        open_dataset(tiny_ptbxl.path, progress=False)
    assert len(open_dataset(tiny_ptbxl.path, allow_missing=True, progress=False)) == 23


def test_no_such_folder(tmp_path):
    with pytest.raises(UserError, match="nowhere: no such folder"):
        open_dataset(tmp_path / "nowhere")


def test_a_folder_of_something_else(tmp_path):
    with pytest.raises(UserError, match=r"has neither ptbxl_database\.csv nor manifest\.json"):
        open_dataset(tmp_path)


def test_synthetic_is_made_on_first_use(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(opening, "SYNTHETIC_RECORDS", 20)
    first = open_dataset("synthetic", progress=False)
    assert len(first) == 20
    table = tmp_path / "data" / "synthetic" / "ptbxl_database.csv"
    before = table.stat().st_mtime_ns
    assert open_dataset("synthetic", progress=False).fingerprint == first.fingerprint
    assert table.stat().st_mtime_ns == before


def test_synthetic_data_have_records_for_every_split(tmp_path):
    write_dataset(tmp_path / "made", 20, 0, progress=False)
    assert set(open_dataset(tmp_path / "made", progress=False).fold) == set(range(1, 11))
