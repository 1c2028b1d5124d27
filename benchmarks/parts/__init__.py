"""What the benchmarks are made of. Nothing here is a command, and nothing here imports one.

- What is measured: `records` (random ones, and networks for them), `steps` (the project's own, compiled),
  `convolutions` (those of a step)
- Time: `timing` (a call and its spread), `ceilings` (the most the machine can do), `machine` (where, when, with what),
  `kernels` (the device's profiler), `session` (a run that is short of time)
- Programs: `hlo` (reads XLA's text), then `cost` (multiplications, bytes, kernels) and `program` (messages, memory, what
  moves most) by it; `absent` (compiles for a device that is not there)
- The originals: `side_by_side` (in turn with ours), `reference` (what their interpreter runs), `drawn`
  (weights by rule)
- To read: `tables`, `figures`, `device_report`, `faithfulness_report`, `speedrun` (claims and records)
"""
