"""The compilation cache: the second start compiles nothing, and nothing that is wrong with it stops or changes a run."""

import errno
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from experiments.cli import cache_place
from imlenet_jax.runtime import compilation
from imlenet_jax.runtime.compilation import CacheWarning, Entries, use_cache, user_folder

X = jnp.arange(8.0)


@pytest.fixture
def cache(tmp_path):
    """The folder of a cache that is in use, whose entries only this test writes; it is made by the first."""
    jax.config.update("jax_enable_compilation_cache", True)
    compilation.compilation_cache.reset_cache()
    yield use_cache(tmp_path / "cache")
    use_cache(False)
    jax.config.update("jax_enable_compilation_cache", False)
    compilation.compilation_cache.reset_cache()


@pytest.fixture
def events():
    """The names of what JAX does with its cache, as it happens."""
    names = []
    listen = lambda event, **_: names.append(event.rpartition("/")[2])  # noqa: E731
    jax.monitoring.register_event_listener(listen)
    yield names
    jax.monitoring.unregister_event_listener(listen)


def _compute():
    """Something that is compiled anew, or read, whenever this is called."""
    return jax.jit(lambda x: jnp.cumsum(jnp.sin(x)) * 3)(X).tolist()


def _entries(folder):
    return sorted(folder.glob("*.compiled"))


def test_a_program_is_compiled_once(cache, events):
    first = _compute()
    assert events.count("cache_misses") == len(_entries(cache)) == 1
    assert cache.stat().st_mode & 0o77 == 0
    assert _compute() == first
    assert events.count("cache_hits") == 1 and events.count("cache_misses") == 1


def _cut(path):
    path.write_bytes(path.read_bytes()[:-10])


def _flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _garbage(path):
    path.write_bytes(b"not a program")


def _empty(path):
    path.write_bytes(b"")


def _of_another_machine(path):
    machine = compilation.describe_machine() + ", another"
    other = Entries(path.parent, machine)
    key = path.name.removesuffix(".compiled")
    other.put(key, path.read_bytes()[32:])


@pytest.mark.parametrize("damage", [_cut, _flip, _garbage, _empty, _of_another_machine])
def test_what_is_damaged_or_foreign_is_compiled_anew_and_mended(cache, events, damage):
    first = _compute()
    (path,) = _entries(cache)
    whole = path.read_bytes()
    damage(path)
    assert path.read_bytes() != whole
    with pytest.warns(CacheWarning, match=f"{path.name} in the compilation cache is damaged or of another machine"):
        assert _compute() == first
    assert events.count("cache_hits") == 0
    assert _compute() == first and events.count("cache_hits") == 1


def test_a_program_that_jax_cannot_load_is_compiled_anew(cache):
    first = _compute()
    (path,) = _entries(cache)
    key = path.name.removesuffix(".compiled")
    Entries(cache, compilation.describe_machine()).put(key, compilation.compilation_cache.compress_executable(b"1234x"))
    with pytest.warns(UserWarning, match="Error reading persistent compilation cache entry"):
        assert _compute() == first


def test_a_folder_in_the_place_of_an_entry(cache):
    first = _compute()
    (path,) = _entries(cache)
    path.unlink()
    path.mkdir()
    with pytest.warns(CacheWarning) as told:
        assert _compute() == first
    assert [str(each.message).partition(" (")[0] for each in told] == [
        f"the compilation cache {cache} cannot be read",
        f"the compilation cache {cache} cannot be written",
    ]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_cannot_be_written_is_named_once(cache, events, monkeypatch, code):
    expected = _compute()

    def fail(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(compilation, "write_atomically", fail)
    _entries(cache)[0].unlink()
    with pytest.warns(CacheWarning, match=rf"cannot be written \({os.strerror(code)}\): choose another folder") as told:
        assert _compute() == _compute() == expected
    assert len(told) == 1 and events.count("cache_hits") == 0


def test_a_full_disk(cache, file_size_limit):
    file_size_limit(100)
    with pytest.warns(CacheWarning, match="cannot be written"):
        assert len(_compute()) == 8
    assert not list(cache.iterdir())


def test_a_file_in_the_way(cache, tmp_path):
    (tmp_path / "file").write_text("here")
    use_cache(tmp_path / "file")
    with pytest.warns(CacheWarning, match=r"cannot be (read|written) \(Not a directory\)"):
        assert len(_compute()) == 8


def test_a_folder_that_may_only_be_read_is_read(cache, events, monkeypatch):
    first = _compute()
    monkeypatch.setattr(os, "utime", lambda path: (_ for _ in ()).throw(PermissionError(errno.EACCES, "no")))
    assert _compute() == first and events.count("cache_hits") == 1


def test_what_was_not_used_for_longest_makes_room(tmp_path, monkeypatch):
    entries = Entries(tmp_path, "machine")
    for age, name in enumerate(["old-1", "new-2", "older-3"]):
        entries.put(name, bytes(100))
        os.utime(tmp_path / f"{name}.compiled", (10 - age, 10 - age))
    assert entries.get("older-3") == bytes(100)  # which is a use
    left = tmp_path / ".x.tmp"
    left.write_bytes(b"")
    os.utime(left, (0, 0))
    monkeypatch.setattr(compilation, "LIMIT", 300)
    entries.put("newest-4", bytes(100))
    assert {path.name for path in tmp_path.iterdir()} == {"older-3.compiled", "newest-4.compiled"}


def test_names_do_not_leave_the_folder(tmp_path):
    entries = Entries(tmp_path / "in", "machine")
    entries.put("../../x/y-12", b"1")
    assert entries.get("../../x/y-12") == b"1" and len(list((tmp_path / "in").iterdir())) == 1


def test_the_folder_tells_platform_kind_of_cpu_and_versions(cache, monkeypatch, tmp_path):
    assert cache.name.startswith("cpu-") and f"jax{jax.__version__}" in cache.name
    monkeypatch.setattr(compilation, "_cpu", lambda: ["flags: fpu vme"])
    other = use_cache(tmp_path)
    assert other.parent == tmp_path and other.name != cache.name
    assert other.name.rpartition("-")[0] == cache.name.rpartition("-")[0]


def test_which_cache(cache, tmp_path, monkeypatch):
    assert use_cache() == use_cache(True) == cache  # there is one already
    use_cache(False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert use_cache().parent == user_folder() == tmp_path / "xdg" / "imlenet_jax" / "compiled"
    use_cache(False)
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # which is to be ignored
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert user_folder() == tmp_path / "home" / ".cache" / "imlenet_jax" / "compiled"
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "theirs"))
    assert use_cache() is None and compilation._ours is None
    jax.config.update("jax_compilation_cache_dir", None)
    jax.config.update("jax_enable_compilation_cache", False)
    assert use_cache(tmp_path) is None
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    jax.config.update("jax_enable_compilation_cache", True)
    with pytest.warns(CacheWarning, match=r"no compilation cache \(no home\)"):
        assert use_cache() is None


def test_a_version_of_jax_that_takes_none(tmp_path, monkeypatch):
    jax.config.update("jax_enable_compilation_cache", True)
    monkeypatch.delattr(compilation.compilation_cache, "_cache_initialized")
    with pytest.warns(CacheWarning, match="no compilation cache with jax"):
        assert use_cache(tmp_path) is None
    jax.config.update("jax_enable_compilation_cache", False)


def test_flags():
    assert cache_place("False") is False and cache_place("True") is True and cache_place("there") == Path("there")


TRAIN = """
import sys, jax, json, experiments.train
events = []
jax.monitoring.register_event_listener(lambda event, **_: events.append(event.rpartition("/")[2]))
try:
    experiments.train.main()
finally:
    print(json.dumps([events.count("cache_misses"), events.count("cache_hits")]))
"""


def test_the_second_training_compiles_nothing_and_learns_the_same(tmp_path, synthetic_shards):
    config = json.dumps({"filters": [4, 4], "lstm_units": 4, "hidden": 8})
    flags = ["--model", "mousavi", "--data_dir", synthetic_shards, "--batchsize", 8, "--epochs", 1, "--config", config]
    environment = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "true", "XDG_CACHE_HOME": str(tmp_path / "user")}
    counts, logs = [], []
    for name in ("cold", "warm"):
        folders = ["--checkpoint_dir", tmp_path / name / "checkpoints", "--log_dir", tmp_path / name / "logs"]
        command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", TRAIN, *map(str, [*flags, *folders])]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "warning" not in done.stderr and "Machine type" not in done.stderr
        counts.append(json.loads(done.stdout.splitlines()[-1]))
        logs.append(json.loads((tmp_path / name / "logs" / "mousavi_train_logs.json").read_text())["history"])
    (compiled, _), (again, read) = counts
    assert compiled > 0 and (again, read) == (0, counts[0][0] + counts[0][1])
    assert logs[0] == logs[1]
    assert (tmp_path / "user" / "imlenet_jax").is_dir()


def test_warnings_are_errors_here():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Entries(Path("nowhere"), "machine").get("x-1")  # a miss says nothing
