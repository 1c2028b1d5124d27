"""Kernels of a device's trace."""

from benchmarks.parts.kernels import kernel_events, summary


def test_kernels_of_a_trace_are_summed_by_kind():
    def named(kind, pid, name, tid=0):
        return {"ph": "M", "name": kind, "pid": pid, "tid": tid, "args": {"name": name}}

    def ran(pid, tid, name, dur):
        return {"ph": "X", "pid": pid, "tid": tid, "name": name, "dur": dur}

    events = [
        named("process_name", 1, "/device:GPU:0"),
        named("process_name", 2, "/host:CPU"),
        named("thread_name", 1, "Stream #13(Compute)", 7),
        named("thread_name", 1, "XLA Ops", 8),
        ran(1, 7, "loop_fusion_3", 10),
        ran(1, 7, "loop_fusion_4", 30),
        ran(1, 7, "conv", 5),
        ran(1, 8, "conv", 5),
        ran(2, 7, "python", 99),
    ]
    found = summary(kernel_events(events), 1)
    assert found == {"us": 9, "started": 0.6, "longest": [{"kernel": "loop_fusion", "us": 8, "started": 0.4}]}
