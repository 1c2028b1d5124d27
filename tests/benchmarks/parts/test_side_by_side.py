"""The process of an original network: its protocol, its errors, and the order of the turns."""

import sys

import numpy as np
import pytest

from benchmarks.parts.side_by_side import Original, check_reference, time_in_turn
from imlenet_jax.errors import UserError

X, Y = np.zeros((2, 1000, 12), np.float32), np.zeros((2, 5), np.float32)


@pytest.fixture
def repository(tmp_path):
    """A clone whose ecgnet does nothing, on a torch that does nothing, but prints as keras does."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "IMLENet.py").touch()
    nothing = "import sys\nfrom unittest.mock import MagicMock\n"
    (tmp_path / "torch.py").write_text(
        nothing + "sys.modules['torch'] = MagicMock(__version__='0.0', device=lambda _: MagicMock(type='cpu'))\n"
    )
    ecgnet = nothing + "print('a summary')\nECGNet = MagicMock(side_effect=lambda: print('another') or MagicMock())\n"
    (tmp_path / "models" / "ECGNet.py").write_text(ecgnet)
    (tmp_path / "models" / "resnet101.py").write_text("raise SystemError('no such layer')\n")
    return tmp_path


def test_times_single_steps_until_the_turn_is_over(repository):
    with Original(sys.executable, repository, "ecgnet", X, Y) as original:
        assert original.framework == "torch 0.0"
        assert len(original.turn("train", 0)) == 1
        times = original.turn("infer", 0.05)
        assert len(times) > 1 and min(times) > 0
        assert sum(times) >= 0.05 > sum(times[:-1])
    with Original(sys.executable, repository, "ecgnet", X, Y, "bfloat16", "compile") as original:
        assert len(original.turn("train", 0)) == 1


def test_what_the_original_says_last_is_passed_on(repository):
    with pytest.raises(UserError, match=r"resnet101 ended under --reference_python .*: SystemError: no such layer"):
        Original(sys.executable, repository, "resnet101", X, Y)


def test_a_process_that_dies_later_is_named(repository):
    with Original(sys.executable, repository, "ecgnet", X, Y) as original:
        original._process.kill()
        original._process.wait()
        with pytest.raises(UserError, match="ecgnet ended"):
            original.turn("train", 0)


def test_a_reference_that_cannot_work_is_refused_at_once(repository, tmp_path_factory):
    with pytest.raises(UserError, match=r"has no models/IMLENet\.py"):
        check_reference(tmp_path_factory.mktemp("empty"), sys.executable, ["ecgnet"], ["float32"])
    with pytest.raises(UserError, match="no Python that can be run"):
        check_reference(repository, "no-such-python", ["ecgnet"], ["float32"])
    with pytest.raises(UserError, match=r"lacks tensorflow.*tf_keras"):
        check_reference(repository, sys.executable, ["mousavi"], ["float32"])
    with pytest.raises(UserError, match="add it to --dtype"):
        check_reference(repository, sys.executable, ["mousavi"], ["bfloat16"])


def test_sides_alternate(monkeypatch):
    monkeypatch.setattr("benchmarks.parts.side_by_side.IDLE_SECONDS", 0)
    order = []

    def side(name):
        def turn(seconds):
            order.append(name)
            return [seconds, float(len(order))]

        return turn

    ours, theirs = time_in_turn([side("ours"), side("theirs")], turns=2, seconds=0.5)
    assert order == ["ours", "theirs"] * 2
    assert ours == [0.5, 1, 0.5, 3]
    assert theirs == [0.5, 2, 0.5, 4]
