"""Commands as the shell calls them."""

import sys
from types import ModuleType
from typing import Any

import pytest


def call(monkeypatch: pytest.MonkeyPatch, command: ModuleType, *flags: Any) -> int:
    """Run a command with these flags in this process; returns its exit status."""
    monkeypatch.setattr(sys, "argv", [command.__name__, *map(str, flags)])
    with pytest.raises(SystemExit) as ended:
        command.main()
    return ended.value.code
