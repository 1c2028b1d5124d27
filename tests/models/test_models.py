"""Sizes, shapes and options of the networks."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imlenet_jax.errors import UserError
from imlenet_jax.models import MODELS, abstract_variables, create_model, make_config, with_new_head
from tests.conftest import initial_variables

# The published sizes: with BatchNorm statistics where keras counts them, without where torch does.
SIZES = {
    "imle_net": 748_517,
    "mousavi": 2_382_565,
    "rajpurkar": 10_483_621,
    "ecgnet": 1_031_949,
    "resnet101": 156_889_221,
    "xresnet1d101": 1_872_261,
    "s4": 2_149_381,
}


@pytest.mark.parametrize("model", MODELS)
def test_parameter_count_is_the_published_one(model):
    variables = abstract_variables(create_model(model))
    counted = variables if MODELS[model].framework == "keras" else variables["params"]
    assert sum(int(np.prod(array.shape)) for array in jax.tree.leaves(counted)) == SIZES[model]


def test_shapes_and_independence_of_records(tiny):
    """Logits and `aux` have the documented shapes; in inference a record does not depend on the others."""
    model, config = tiny
    network = create_model(model, config)
    apply, variables = jax.jit(network.apply), initial_variables(network)
    x = np.random.default_rng(1).normal(size=(3, config.length, config.leads)).astype(np.float32)
    logits, aux = apply(variables, x)
    assert logits.shape == (3, 5) and logits.dtype == jnp.float32
    others = x.copy()
    others[1:] += 1
    np.testing.assert_allclose(apply(variables, others)[0][0], logits[0], rtol=1e-4, atol=1e-5)
    if model == "imle_net":
        shapes = {level: weights.shape for level, weights in aux.items()}
        assert shapes == {"beat": (3, 12, 2, 25), "rhythm": (3, 12, 2), "channel": (3, 12)}
        for weights in aux.values():
            np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
    else:
        assert aux == {}


def test_leads_length_and_classes_are_parameters():
    config = make_config("imle_net", {"leads": 3, "length": 200, "classes": 2, "filters": [4, 4], "lstm_units": 2})
    network = create_model("imle_net", config)
    logits, aux = jax.jit(network.apply)(initial_variables(network), jnp.zeros((1, 200, 3)))
    assert logits.shape == (1, 2) and aux["rhythm"].shape == (1, 3, 4)


def test_a_new_head_leaves_every_other_layer(tiny):
    model, config = tiny
    variables = initial_variables(create_model(model, config))
    network = create_model(model, dataclasses.replace(config, classes=3))
    changed = with_new_head(network, variables, jax.random.key(1))
    assert jax.tree.map(jnp.shape, changed) == jax.tree.map(lambda a: a.shape, abstract_variables(network))
    assert changed["params"].pop("head")["kernel"].std() > 0 and variables["params"].pop("head")
    jax.tree.map(np.testing.assert_array_equal, changed, variables)


def test_mousavi_layouts_cut_different_windows():
    """`reference` takes twelve consecutive samples of one lead as channels; `by_lead` twelve leads."""
    x = np.random.default_rng(2).normal(size=(1, 100, 12)).astype(np.float32)
    options = {"length": 100, "filters": [4, 4], "lstm_units": 4, "hidden": 8}
    networks = {
        layout: create_model("mousavi", make_config("mousavi", options | {"layout": layout}))
        for layout in ("reference", "by_lead")
    }
    variables = initial_variables(networks["reference"])
    scrambled, _ = jax.jit(networks["reference"].apply)(variables, x)
    # The reference's reading of x is by_lead's reading of the lead-major array laid out in the same order.
    relaid = x[0].T.reshape(1, 100, 12)
    by_lead, _ = jax.jit(networks["by_lead"].apply)(variables, relaid)
    np.testing.assert_allclose(scrambled, by_lead, rtol=1e-5)
    assert not np.allclose(scrambled, jax.jit(networks["by_lead"].apply)(variables, x)[0])


@pytest.mark.parametrize(
    ("model", "values", "sentence"),
    [
        ("imlenet", {}, "unknown: choose one of imle_net, mousavi, rajpurkar, ecgnet, resnet101"),
        ("imle_net", {"width": 3}, "imle_net has no option 'width'"),
        ("imle_net", {"filters": 3}, "'filters' takes a value like"),
        ("imle_net", {"length": 1020}, "1020 is not a multiple: choose another length"),
        ("mousavi", {"layout": "sideways"}, "'layout' is one of reference, by_lead"),
        ("imle_net", {"filters": [0, 4]}, "'filters' takes whole numbers from 1 to 1000000"),
        ("ecgnet", {"length": 20}, "20 samples are too short for ecgnet with these options .*: take more"),
    ],
)
def test_wrong_names_and_values_are_refused(model, values, sentence):
    with pytest.raises(UserError, match=sentence):
        make_config(model, values)
