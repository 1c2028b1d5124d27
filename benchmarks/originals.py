"""Write down what the originals of xresnet1d101 and s4 compute, as `benchmarks.parity` reads it.

    python benchmarks/originals.py xresnet1d101 REPOSITORY inputs.npz benchmarks/golden
    python benchmarks/originals.py s4 REPOSITORY inputs.npz benchmarks/golden

REPOSITORY is a checkout of helme/ecg_ptbxl_benchmarking, or of tmehari/ssm_ecg. This runs in an environment of their own, with
torch, einops and opt_einsum, and fastai 1.0.61 for the first. `inputs.npz` has `x` (16, 1000, 12) float32, standardised,
and `y` (16, 5). The originals' own modules run, on a CPU in float32, with weights by rule; of S4 the sum over
eigenvalues, which has only a CUDA kernel, is written out. Nothing of imlenet_jax is imported here.
"""

import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from parts.drawn import draw

SEED, BATCH, STEPS = 1, 8, 10


def main() -> None:
    """Build, draw, run, write."""
    model, repository, inputs, out = sys.argv[1:]
    torch.manual_seed(0)
    sys.path.insert(0, str(Path(repository) / "code"))
    network = {"xresnet1d101": xresnet1d101, "s4": s4}[model]()
    spec = draw_weights(network)
    arrays = np.load(inputs)
    x = torch.from_numpy(np.ascontiguousarray(arrays["x"].transpose(0, 2, 1)))
    y = torch.from_numpy(arrays["y"].astype(np.float32))
    found = run(network, {"xresnet1d101": fastai_adam, "s4": adamw}[model], x, y)
    Path(out).mkdir(exist_ok=True)
    np.savez_compressed(Path(out) / f"{model}.npz", **found)
    (Path(out) / f"{model}.spec.json").write_text(json.dumps(spec))


def xresnet1d101() -> torch.nn.Module:
    """The network of `fastai_xresnet1d101` (code/models/fastai_model.py)."""
    from models.xresnet1d import xresnet1d101

    network: torch.nn.Module = xresnet1d101(
        num_classes=5, input_channels=12, kernel_size=5, ps_head=0.5, lin_ftrs_head=[128]
    )
    return network


def s4() -> torch.nn.Module:
    """The network of `--model s4` (code/train_ecg_model.py), for records of 1,000 samples."""
    for name in ("pytorch_lightning", "pytorch_lightning.utilities", "cauchy_mult"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["pytorch_lightning.utilities"].rank_zero_only = lambda function: function  # type: ignore[attr-defined]
    from dl_models import s4 as layers
    from dl_models.s4_model import S4Model

    layers._resolve_conj = lambda x: x.conj().resolve_conj()  # as with the torch 1.10 that it was written for
    layers.cauchy_conj = cauchy
    network: torch.nn.Module = S4Model(
        12, 5, d_model=512, d_state=8, n_layers=4, dropout=0.2, l_max=1000, bidirectional=True
    )
    return network


def cauchy(v: torch.Tensor, z: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Sums of `v / (z - w)` over eigenvalues in conjugate pairs: the formula of the original's `cauchy_conj`."""
    v, z, w = v[..., None], z[..., None, :], w[..., None]
    return (v / (z - w) + v.conj() / (z - w.conj())).sum(-2)


def draw_weights(network: torch.nn.Module) -> list[tuple[str, list[int], bool]]:
    """Give the network weights by rule; returns names, shapes, and which belong to a normalisation."""
    norms = (torch.nn.BatchNorm1d, torch.nn.LayerNorm)
    normalised = {name for name, module in network.named_modules() if isinstance(module, norms)}
    spec, drawn = [], {}
    for name, array in network.state_dict().items():
        if ".convpath." in name or name.endswith((".omega", ".z")):  # a second name, or derived
            continue
        norm = name.rpartition(".")[0] in normalised
        drawn[name] = torch.from_numpy(draw(SEED, name, tuple(array.shape), norm)).to(array.dtype)
        spec.append((name, list(array.shape), norm))
    for name, array in drawn.items():
        module = network.get_submodule(name.rpartition(".")[0])
        leaf = name.rpartition(".")[2]
        if leaf in module._buffers:
            setattr(module, leaf, array)  # several places of a buffer may be one in memory
        else:
            getattr(module, leaf).data.copy_(array)
    return spec


def fastai_adam(network: torch.nn.Module) -> Any:
    """The optimizer of fastai's `Learner` as the benchmark sets it, at a constant rate."""
    from functools import partial

    from fastai.callback import OptimWrapper

    adam = partial(torch.optim.Adam, betas=(0.9, 0.99))
    return OptimWrapper.create(adam, 1e-3, [network], wd=1e-2, true_wd=True, bn_wd=True)


def adamw(network: torch.nn.Module) -> torch.optim.Optimizer:
    """The optimizer of `ECGLightningModel`."""
    return torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-3)


def run(network: torch.nn.Module, make_optimizer: Any, x: torch.Tensor, y: torch.Tensor) -> dict[str, np.ndarray]:
    """The arrays that the README of the golden folder lists, without dropout."""
    for module in network.modules():
        if isinstance(module, torch.nn.modules.dropout._DropoutNd):
            module.p = 0.0
    loss_of = torch.nn.functional.binary_cross_entropy_with_logits
    found: dict[str, Any] = {"logits": infer(network, x)}
    optimizer, losses = make_optimizer(network), []
    network.train()
    for step in range(STEPS):
        rows = np.arange(BATCH * step, BATCH * (step + 1)) % len(x)
        loss = loss_of(network(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            gradients = {name: p.grad.norm().item() for name, p in network.named_parameters() if p.grad is not None}
            found |= {"grad_name": np.array(list(gradients)), "grad_norm": np.array(list(gradients.values()))}
        optimizer.step()
        losses.append(loss.item())
        if step == 0:
            statistics = {
                name: array.norm().item()
                for name, array in network.state_dict().items()
                if name.endswith(("running_mean", "running_var")) and ".convpath." not in name
            }
            found |= {"stat_name": np.array(list(statistics)), "stat_norm": np.array(list(statistics.values()))}
    return found | {"train_loss": np.array(losses), "logits_after": infer(network, x)}


def infer(network: torch.nn.Module, x: torch.Tensor) -> np.ndarray:
    """Logits in inference mode."""
    network.eval()
    with torch.no_grad():
        return network(x).numpy()


if __name__ == "__main__":
    main()
