"""Writing files whole or not at all."""

import os
import stat
from typing import Any

import pytest

from imlenet_jax.files import conforms, move_aside, read_json, read_limited, write_atomically, write_json


def test_a_file_is_replaced_whole_with_the_usual_permissions(tmp_path):
    path = tmp_path / "new" / "a.json"
    write_json(path, {"a": 1})
    write_json(path, {"a": 2})
    assert path.read_text() == '{\n  "a": 2\n}\n'
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file_and_names_it(tmp_path, monkeypatch):
    path = tmp_path / "a"
    write_atomically(path, b"old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as error:
        write_atomically(path, b"new")
    assert error.value.filename == str(path)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "", "[1, 2, 3]" * 99])
def test_what_is_no_json_or_too_much_of_it_is_a_value_error(tmp_path, text):
    (tmp_path / "a").write_text(text)
    with pytest.raises(ValueError, match=r"nested too deeply|more than 50 bytes|Expecting"):
        read_json(tmp_path / "a", 50 if text.startswith("[1") else 10**6)


def test_limited_files_are_read_whole_or_not_at_all(tmp_path):
    (tmp_path / "a").write_bytes(b"1234")
    assert read_limited(tmp_path / "a", 4) == b"1234" and read_json(tmp_path / "a", 4) == 1234
    with pytest.raises(ValueError, match="it has more than 3 bytes"):
        read_limited(tmp_path / "a", 3)


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (str, "a", 1),
        (int, 1, True),
        (float, 1, "1"),
        (list[str], ["a"], ["a", 1]),
        (dict[str, float], {"a": 0.5}, {"a": None}),
        (list[float | None] | None, [None, 1], {"a": 1}),
        (dict[str, Any], {"a": [1]}, [1]),
    ],
)
def test_kinds_of_json(kind, good, bad):
    assert conforms(good, kind) and not conforms(bad, kind)


def test_nan_is_no_json(tmp_path):
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(tmp_path / "a", float("nan"))
    assert not (tmp_path / "a").exists()


def test_what_was_there_is_moved_aside_not_deleted(tmp_path):
    folder = tmp_path / "run"
    (folder / "1").mkdir(parents=True)
    assert move_aside(folder) == tmp_path / "run.old-1"
    assert not folder.exists() and (tmp_path / "run.old-1/1").is_dir()
    assert move_aside(folder) is None
    for name in ("log.json", "more.old-1", "more"):
        (tmp_path / name).touch()
    assert move_aside(*(tmp_path / name for name in ("none", "log.json", "more"))) == tmp_path / "log.json.old-2"
    assert (tmp_path / "more.old-2").exists()
