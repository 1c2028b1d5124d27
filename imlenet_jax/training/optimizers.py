"""The optimizers of the originals: Adam as keras and as torch write it, and keras' clipping of each array by itself."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax

from imlenet_jax.errors import UserError
from imlenet_jax.models import entry

SCHEDULES = ("constant", "onecycle")


def courses(schedule: str, peak: float, steps: int) -> tuple[float | optax.Schedule, optax.Schedule | None]:
    """The learning rate, and Adam's decay of the first moment, over a run of so many steps.

    `constant` is `peak` throughout, and the network's own decay (None). `onecycle` is fastai's `fit_one_cycle` (Smith and
    Topin, 2017), by half cosines: the rate rises from peak / 25 for 30 % of the steps and falls to peak / 250,000, while
    the decay falls from 0.95 to 0.85 and rises again.

    Raises:
        UserError: there is no such schedule.
    """
    if schedule not in SCHEDULES:
        raise UserError(f"schedule is {schedule!r}: choose one of {', '.join(SCHEDULES)}")
    if schedule == "constant":
        return peak, None
    turns = {int(0.3 * steps): 0.85 / 0.95, steps: 0.95 / 0.85}
    return optax.cosine_onecycle_schedule(steps, peak), optax.piecewise_interpolate_schedule("cosine", 0.95, turns)


def make_optimizer(
    model: str,
    learning_rate: float | optax.Schedule = 1e-3,
    exclusive: bool = False,
    weight_decay: float | None = None,
    b1: optax.Schedule | None = None,
) -> optax.GradientTransformation:
    """The optimizer that a network was published with (`train.py`, `torch_train.py` of the reference).

    rajpurkar's gradients are clipped to an L2 norm of 1, each array by itself: keras' `clipnorm`. Not for exclusive classes,
    the sub-diagnosis of MI. The network's own `weight_decay`, unless given, makes it AdamW: each update also takes
    that share, times the learning rate, off every parameter. `b1` takes the place of the network's own decay of the first
    moment.
    """
    found = entry(model)
    decay = found.weight_decay if weight_decay is None else weight_decay
    decayed = [optax.add_decayed_weights(decay)] if decay else []
    own, b2 = found.betas
    kind = partial(optax.scale_by_adam, eps=1e-8) if found.framework == "torch" else scale_by_keras_adam
    adam = kind(own, b2) if b1 is None else _on_course(partial(kind, b2=b2), b1)
    adam = optax.chain(adam, *decayed, optax.scale_by_learning_rate(learning_rate))
    return optax.chain(clip_each_by_norm(1.0), adam) if model == "rajpurkar" and not exclusive else adam


def _on_course(adam: Callable[..., optax.GradientTransformation], b1: optax.Schedule) -> optax.GradientTransformation:
    """Adam of another `b1` at every step; as in torch, a bias is corrected as if that had been `b1` all along."""

    def update(updates: optax.Updates, state: optax.ScaleByAdamState, params: optax.Params | None = None):
        return adam(b1=b1(state.count)).update(updates, state, params)

    return optax.GradientTransformation(adam().init, update)  # type: ignore[arg-type]


def clip_each_by_norm(max_norm: float) -> optax.GradientTransformation:
    """Scale every array whose L2 norm exceeds `max_norm` down to it."""

    def clip(updates: optax.Updates, params: optax.Params | None) -> optax.Updates:
        gradients, tree = jax.tree.flatten(updates)
        factors = [max_norm / jnp.maximum(norm, max_norm) for norm in norms_of(gradients)]
        return jax.tree.unflatten(
            tree, [gradient * factor for gradient, factor in zip(gradients, factors, strict=True)]
        )

    return optax.stateless(clip)


def norms_of(arrays: list[jax.Array]) -> list[jax.Array]:
    """The L2 norm of each array; the last sums are those of several arrays at once, since a GPU starts a kernel per sum."""
    squares = [jnp.sum(jnp.square(array), axis=tuple(range(array.ndim - 1))) for array in arrays]
    by_length: dict[int, list[int]] = {}
    for index, vector in enumerate(squares):
        by_length.setdefault(vector.size, []).append(index)
    norms: dict[int, jax.Array] = {}
    for indices in by_length.values():
        together = jnp.sqrt(jnp.sum(jnp.stack([squares[index] for index in indices]), axis=1))
        norms |= dict(zip(indices, together, strict=True))
    return [norms[index] for index in range(len(arrays))]


def scale_by_keras_adam(
    b1: jax.typing.ArrayLike = 0.9, b2: float = 0.999, epsilon: float = 1e-7
) -> optax.GradientTransformation:
    """Adam with epsilon added to sqrt(v) before its bias is corrected, as keras does.

    Equal to `m_hat / (sqrt(v_hat) + epsilon / sqrt(1 - b2^t))`.
    """

    def init(params: optax.Params) -> optax.ScaleByAdamState:
        zeros = optax.tree.zeros_like(params)
        return optax.ScaleByAdamState(jnp.zeros((), jnp.int32), mu=zeros, nu=optax.tree.zeros_like(params))

    def update(updates: optax.Updates, state: optax.ScaleByAdamState, params: optax.Params | None = None):
        mu = optax.tree.update_moment(updates, state.mu, b1, 1)
        nu = optax.tree.update_moment(updates, state.nu, b2, 2)
        count = state.count + 1
        rate = jnp.sqrt(1 - b2**count) / (1 - b1**count)
        updates = jax.tree.map(lambda m, v: rate * m / (jnp.sqrt(v) + epsilon), mu, nu)
        return updates, optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(init, update)  # type: ignore[arg-type]
