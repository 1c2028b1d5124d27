"""One network of the original repository, timed on request. Runs under the interpreter that has its framework.

    python reference.py REPOSITORY MODEL DATA.npz [DTYPE] [compile]

DATA has `x` (batch, time, leads) float32, standardised, and `y` (batch, classes) float32. DTYPE (float32) and `compile`
are for torch: `bfloat16` is autocast, `compile` is torch.compile. The program says when it is
ready; then every line on its standard input, {"mode": "train" or "infer", "seconds": s}, is answered by one on its
standard output, {"seconds": [...]}: the times of single steps until s seconds have passed. Nothing of imlenet_jax is
imported here.
"""

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

Steps = dict[str, Callable[[], Any]]


def main() -> None:
    """Build the network, then serve until standard input closes."""
    repository, model, data, *how = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # the originals print summaries, which must not get among the answers
    sys.path[0] = repository
    os.chdir(repository)
    arrays = np.load(data)
    if model in ("imle_net", "mousavi", "rajpurkar"):
        steps, framework = keras_steps(model, arrays["x"], arrays["y"])
    else:
        steps, framework = torch_steps(model, arrays["x"], arrays["y"], "bfloat16" in how, "compile" in how)
    print(json.dumps({"ready": framework}), file=answers)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps({"seconds": turn(steps[request["mode"]], request["seconds"])}), file=answers)


def keras_steps(model: str, x: np.ndarray, y: np.ndarray) -> tuple[Steps, str]:
    """The functions that `fit` and `predict` call for every batch, each on an endless iterator over one batch."""
    import tensorflow as tf

    if model == "rajpurkar":
        from configs.rajpurkar_config import params
        from models.rajpurkar import build_rajpurkar

        network = build_rajpurkar(**params)
    else:
        module, build = {"imle_net": ("IMLENet", "build_imle_net"), "mousavi": ("mousavi", "build_mousavi")}[model]
        config = importlib.import_module(f"configs.{model.removesuffix('_net')}_config").Config()
        network = getattr(importlib.import_module(f"models.{module}"), build)(config)
    signals = np.ascontiguousarray(x.transpose(0, 2, 1))[..., np.newaxis]
    training = iter(tf.data.Dataset.from_tensors((signals, y)).repeat())
    prediction = iter(tf.data.Dataset.from_tensors((signals,)).repeat())
    train, predict = network.make_train_function(), network.make_predict_function()
    steps = {"train": lambda: float(train(training)["loss"]), "infer": lambda: predict(prediction).numpy()}
    return steps, f"tensorflow {tf.__version__}"


def torch_steps(model: str, x: np.ndarray, y: np.ndarray, half: bool, compiled: bool) -> tuple[Steps, str]:
    """The steps of `torch_train.py`; inference without recording gradients, which the original does record."""
    import torch

    name, build = {"ecgnet": ("ECGNet", "ECGNet"), "resnet101": ("resnet101", "resnet101")}[model]
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    network = getattr(importlib.import_module(f"models.{name}"), build)().to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.001)
    forward = torch.compile(network) if compiled else network
    loss_function = torch.nn.BCEWithLogitsLoss()
    signals = torch.from_numpy(np.ascontiguousarray(x.transpose(0, 2, 1))).to(device)
    labels = torch.from_numpy(y).to(device)

    def train():
        network.train()
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            loss = loss_function(forward(signals), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss.item())

    def infer():
        network.eval()
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=half):
            return forward(signals).cpu()

    framework = f"torch {torch.__version__}"
    if device.type == "cuda":
        backends = torch.backends
        framework += f", TF32: convolutions {backends.cudnn.allow_tf32}, products {backends.cuda.matmul.allow_tf32}"
    return {"train": train, "infer": infer}, framework


def turn(step: Callable[[], Any], seconds: float) -> list[float]:
    """Times of single steps, at least one, until `seconds` have passed. Every step ends with its result on the host.

    A step before them does not count: on a virtual machine, memory that was free while the other side had its turn may
    have gone back to the host, and the first to use it waits for it (up to half a step's time).
    """
    step()
    times: list[float] = []
    while not times or sum(times) < seconds:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return times


if __name__ == "__main__":
    main()
