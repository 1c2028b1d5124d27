"""A progress bar that says when it is the compiler that is waited for."""

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

from tqdm.auto import tqdm

_NOTHING = contextlib.nullcontext()


def compiling(bar: tqdm, compiled: set[Any], batch: Any) -> AbstractContextManager[None]:
    """While a step is called for the first time with a batch of this shape, the bar says `compiling`.

    `compiled` holds the shapes that there were before; this one joins them.
    """
    shape = getattr(batch, "signal", batch).shape  # of a batch of records, or of their rows
    if shape in compiled:
        return _NOTHING
    compiled.add(shape)
    return _saying(bar)


@contextlib.contextmanager
def _saying(bar: tqdm) -> Iterator[None]:
    before = getattr(bar, "postfix", None) or ""  # a bar that is switched off has none
    bar.set_postfix_str("compiling")
    try:
        yield
    finally:
        bar.set_postfix_str(before, refresh=False)
