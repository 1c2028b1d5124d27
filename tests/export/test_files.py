"""Exported files say what the network says, carry what belongs to it, and are read back or refused."""

import json
import re
import zipfile

import jax
import numpy as np
import pytest

from imlenet_jax.checkpoints.description import Meta
from imlenet_jax.checkpoints.exported import by_name, nested, pack_safetensors, read_exported
from imlenet_jax.classifier import Classifier, load
from imlenet_jax.data.tasks import SUB
from imlenet_jax.errors import DataWarning, UserError
from imlenet_jax.export import verify as module
from imlenet_jax.export.files import FORMATS, describe
from imlenet_jax.export.verify import synthetic_ecgs, verify
from imlenet_jax.models import create_model, make_config
from tests.conftest import TINY, initial_variables

CLASSES = ["CD", "HYP", "MI", "NORM", "STTC"]
LEADS = ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"]
TESTS = {"sets": {"sets": {"asked": 0.9, "assumed": "x", "classes": {}}}}


def make(model="mousavi", **fields):
    config = make_config(model, TINY[model] | {"classes": len(fields.get("classes", CLASSES))})
    variables = initial_variables(create_model(model, config))
    values = TINY[model] | {"classes": config.classes}
    defaults = {"classes": CLASSES, "thresholds": [0.1, 0.2, None, 0.4, 0.5], "epoch": 3}
    meta = Meta(model, values, leads=LEADS, sampling_rate=100, scaler={"mean": 0.1, "std": 0.3}, **defaults | fields)
    return Classifier(meta, variables)


@pytest.fixture(scope="module")
def classifier():
    return make()


def export(classifier, kind, folder, tests=TESTS):
    ecgs = synthetic_ecgs(classifier)
    content, checked = FORMATS[kind](classifier, describe(classifier, tests), ecgs)
    path = folder / f"network.{kind}"
    path.write_bytes(content)
    return path, checked, ecgs


KINDS = [*((name, "stablehlo") for name in TINY), *((name, "safetensors") for name in ("imle_net", "ecgnet", "s4"))]


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_every_network_is_loaded_as_from_a_checkpoint(name, kind, tmp_path):
    ours = make(name)
    path, checked, ecgs = export(ours, kind, tmp_path)
    assert max(checked["largest_difference"].values()) < 1e-5 and checked["batches"] == [1, 7, 64]
    found = load(path)
    assert (found.classes, found.leads, found.meta.thresholds) == (ours.classes, ours.leads, ours.meta.thresholds)
    np.testing.assert_allclose(found.predict_proba(ecgs[:5]), ours.predict_proba(ecgs[:5]), atol=1e-6)
    if name == "imle_net":
        for level, weights in ours.attend(ecgs[:3]).items():
            np.testing.assert_allclose(found.attend(ecgs[:3])[level], weights, atol=1e-6)
    np.testing.assert_allclose(found.logits(ecgs[:3]), ours.logits(ecgs[:3]), atol=1e-4)


def test_every_network_runs_in_onnxruntime(tiny, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("jax2onnx")
    ours = make(tiny[0])
    path, checked, ecgs = export(ours, "onnx", tmp_path)
    session = onnxruntime.InferenceSession(path)
    names = [output.name for output in session.get_outputs()]
    assert names == ["probabilities", *(["beat", "rhythm", "channel"] if tiny[0] == "imle_net" else [])]
    found = dict(zip(names, session.run(None, {"ecg_mv": ecgs[:11]}), strict=True))
    np.testing.assert_allclose(found["probabilities"], ours.predict_proba(ecgs[:11]), atol=1e-5)
    for level in names[1:]:
        np.testing.assert_allclose(found[level], ours.attend(ecgs[:11])[level], atol=1e-5)
    model = onnx.load(path)
    about = json.loads({entry.key: entry.value for entry in model.metadata_props}["imlenet_jax"])
    assert about["classes"] == CLASSES and about["thresholds"] == [0.1, 0.2, None, 0.4, 0.5]
    assert about["checked"] == checked and about["sets"]["asked"] == 0.9
    assert model.doc_string == about["card"] and about["card"].startswith(f"# {tiny[0]}, superclass")
    with pytest.raises(UserError, match="ONNX files are for onnxruntime"):
        load(path)


def test_exclusive_classes_sum_to_one(tmp_path):
    ours = make(classes=list(SUB.classes), thresholds=None, task=SUB.name)
    path, _, ecgs = export(ours, "stablehlo", tmp_path)
    np.testing.assert_allclose(load(path).predict_proba(ecgs).sum(axis=1), 1, atol=1e-6)


def test_a_program_that_says_something_else_is_not_written(classifier, monkeypatch):
    ecgs = synthetic_ecgs(classifier)
    honest = module.run_network(classifier)
    for change in (2e-5, np.nan):
        with pytest.raises(
            UserError, match=r"differs from the network by .* in its probabilities.*nothing was written"
        ):
            verify(classifier, lambda x, change=change: {"probabilities": honest(x)["probabilities"] + change}, ecgs)
    monkeypatch.setattr(module, "run_network", lambda _: lambda x: {"probabilities": np.zeros((len(x), 5))})
    with pytest.raises(UserError, match="nothing was written"):
        verify(classifier, honest, ecgs)


def test_synthetic_ecgs_have_the_shape_that_the_network_takes():
    short = synthetic_ecgs(make("rajpurkar"), n=3)
    assert short.shape == (3, 64, 12) and 0.05 < short.std() < 1
    meta = make("rajpurkar").meta
    two = Classifier.__new__(Classifier)
    two.meta = Meta(**{**vars(meta), "leads": ["V1", "mine"], "sampling_rate": 200})
    two.network = create_model("rajpurkar", make_config("rajpurkar", TINY["rajpurkar"] | {"leads": 2, "length": 3000}))
    long = synthetic_ecgs(two, n=3)
    assert long.shape == (3, 3000, 2)
    np.testing.assert_array_equal(long[:, :128:2, 0], short[:, :, 6])  # twice the rate
    np.testing.assert_array_equal(long[:, 2000:], long[:, :1000])  # 10 s, then anew


def test_names_and_trees():
    tree = {"params": {"a": {"kernel": 1, "bias": 2}, "b": {"kernel": 3}}, "batch_stats": {"a": {"mean": 4}}}
    assert nested(by_name(tree)) == tree
    assert sorted(by_name(tree)) == ["batch_stats/a/mean", "params/a/bias", "params/a/kernel", "params/b/kernel"]


def test_equal_networks_give_equal_weights(classifier):
    about = describe(classifier, {})
    assert pack_safetensors(about, classifier.variables) == pack_safetensors(about, classifier.variables)


def test_a_stablehlo_file_needs_nothing_of_ours(classifier, tmp_path):
    import safetensors.numpy

    path, _, ecgs = export(classifier, "stablehlo", tmp_path)
    with zipfile.ZipFile(path) as archive:
        program = jax.export.deserialize(bytearray(archive.read("program.bin")))
        weights = safetensors.numpy.load(archive.read("weights.safetensors"))
        assert json.loads(archive.read("about.json"))["input"]["shape"] == ["batch", 100, 12]
        assert archive.read("card.md").startswith(b"# mousavi")
    assert set(program.platforms) == {"cpu", "cuda", "rocm", "tpu"}
    found = program.call(weights, ecgs[:3])["probabilities"]
    np.testing.assert_allclose(found, classifier.predict_proba(ecgs[:3]), atol=1e-6)


@pytest.mark.parametrize("kind", ["stablehlo", "safetensors"])
def test_damaged_files_are_refused(classifier, kind, tmp_path):
    path, *_ = export(classifier, kind, tmp_path)
    good = path.read_bytes()
    middle = len(good) - 5000  # of the weights
    for bad in (b"", b"x", good[:100], good[:-50], good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :]):
        path.write_bytes(bad)
        with pytest.raises(UserError, match=rf"^{re.escape(str(path))} is no exported network, or is damaged"):
            load(path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": 2}, "it is of version 2, and this program reads 1"),
        ({"format": "other"}, "it is of version"),
        ({"meta": {}}, "TypeError"),
    ],
)
def test_other_descriptions_are_refused(classifier, tmp_path, change, reason):
    path = tmp_path / "x.safetensors"
    path.write_bytes(pack_safetensors(describe(classifier, {}) | change, classifier.variables))
    with pytest.raises(UserError, match=reason):
        read_exported(path)


def test_weights_of_another_network_are_refused(classifier, tmp_path):
    about = describe(make("rajpurkar"), {})
    path = tmp_path / "x.safetensors"
    path.write_bytes(pack_safetensors(about, classifier.variables))
    with pytest.raises(UserError, match="its arrays are not those of its network"):
        read_exported(path)


def test_a_program_of_another_time_gives_way_to_the_weights(classifier, tmp_path):
    path, _, ecgs = export(classifier, "stablehlo", tmp_path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (parts | {"program.bin": b"of another time"}).items():
            archive.writestr(name, content)
    with pytest.warns(DataWarning, match="the program in .* cannot run here .*: its weights are used"):
        found = load(path)
    np.testing.assert_allclose(found.predict_proba(ecgs), classifier.predict_proba(ecgs), atol=1e-6)


def test_a_gpu_runs_the_program_whatever_jax_calls_it(classifier, tmp_path, monkeypatch):
    path, _, _ = export(classifier, "stablehlo", tmp_path)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")  # NVIDIA's; the program's platform is cuda
    monkeypatch.setattr(jax.export, "default_export_platform", lambda: "cuda")
    load(path)  # a warning would be an error


def test_with_other_weights_the_network_answers_and_not_the_program(classifier, tmp_path):
    path, _, ecgs = export(classifier, "stablehlo", tmp_path)
    found = load(path)
    halved = jax.tree.map(lambda array: array * 0.5, found.variables)
    expected = classifier.with_variables(halved).predict_proba(ecgs)
    np.testing.assert_allclose(found.with_variables(halved).predict_proba(ecgs), expected, atol=1e-6)
