"""Measurements, each a command `python -m benchmarks.NAME` of its own; `--help` has the flags, README.md the results.

- Do we compute what the originals do? `parity`, `originals` (what xresnet1d101 and s4 give)
- How fast? `throughput` (and the originals beside), `latency` (one record), `runtimes` (exported, in others), `scaling` (records, batch, devices), `host`
  (what Python adds to a step), `start` (from the command to the first step), `input_pipeline` (reading), `recordings` (own ones), `seeds` (several networks in one program)
- On an accelerator? `device` (one that is there for minutes), `compiled` (one that is not there)
- Does training come out as it should? `time_to_auc` (and how soon), `precision` (bfloat16), `resampling` (500 Hz), `linear` (the yardstick)
- Do the maps mean anything? `faithfulness`
- What does it survive? `faults` (kills), `fuzz` (damaged files), `bad_input` (every defect and its sentence)

`readme` writes README.md from `results/`, and that of `records/`. What the commands share is in `parts`.
"""

from imlenet_jax.runtime.memory import use_huge_pages
from imlenet_jax.runtime.start import explain_instead_of_traceback

use_huge_pages()
explain_instead_of_traceback()
