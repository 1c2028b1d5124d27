"""What users with a GPU or TPU will compile is lowered here, from shapes alone."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest

from imlenet_jax.data.loader import Batch
from imlenet_jax.models import MODELS, abstract_variables, create_model
from imlenet_jax.training.optimizers import make_optimizer
from imlenet_jax.training.step import Scaler, new_state, predict_step, train_step


@pytest.mark.parametrize("model", MODELS)
def test_both_steps_lower_for_cuda_and_tpu(model):
    network, optimizer = create_model(model, dtype=jnp.bfloat16), make_optimizer(model)
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
        exported = jax.export.export(jax.jit(step), platforms=["cuda", "tpu"])(*arguments)
        assert exported.platforms == ("cuda", "tpu")
        assert "bf16" in exported.mlir_module()
