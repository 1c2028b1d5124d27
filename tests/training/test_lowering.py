"""What users with a GPU or TPU will compile is lowered here, from shapes alone."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest

from imlenet_jax.data.loader import Batch
from imlenet_jax.data.scaling import Scaler
from imlenet_jax.models import MODELS, abstract_variables, create_model, make_config
from imlenet_jax.training.optimizers import make_optimizer
from imlenet_jax.training.step import new_state, predict_step, train_step
from tests.conftest import skip_where_kernels_do_not_lower

RECURRENT = ("imle_net", "mousavi", "ecgnet")
# A hundred layers; the first two blocks of each stage have every kind of them.
FEWER = {name: make_config(name, {"blocks": [2, 2, 2, 2]}) for name in ("resnet101", "xresnet1d101")}


# One platform at a time: in a program for both, JAX would have the GPU's kernel compiled for the TPU as well.
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("model", MODELS)
def test_both_steps_lower(model, platform):
    if platform == "cuda" and model in RECURRENT:
        skip_where_kernels_do_not_lower()
    network, optimizer = create_model(model, FEWER.get(model), dtype=jnp.bfloat16), make_optimizer(model)
    variables = abstract_variables(network)
    state = jax.eval_shape(lambda variables: new_state(variables, optimizer), variables)
    config = network.config
    shape = partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    batch = Batch(
        jax.ShapeDtypeStruct((8, config.length, config.leads), jnp.int16),
        *(shape((8, config.leads)),) * 2,
        shape((8, config.classes)),
        shape((8,)),
    )
    scaler, seed = Scaler(shape(()), shape(())), jax.ShapeDtypeStruct((), jnp.uint32)
    for step, arguments in (
        (partial(train_step, network, optimizer), (state, batch, None, scaler, seed)),
        (partial(predict_step, network), (variables, batch, scaler)),
    ):
        text = jax.jit(step).trace(*arguments).lower(lowering_platforms=(platform,)).as_text()
        assert "bf16" in text
        assert ("triton" in text) == (platform == "cuda" and model in RECURRENT)
