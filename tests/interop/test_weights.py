"""Weights of the originals: the stored networks compute what they did; files that do not fit are refused."""

import pickle
from pathlib import Path

import h5py
import jax
import numpy as np
import pytest

from benchmarks.parity import golden_weights, place
from imlenet_jax.errors import UserError
from imlenet_jax.interop import import_weights
from imlenet_jax.interop.layout import KERAS_LEAVES, LAYOUTS, TORCH_LEAVES
from imlenet_jax.models import MODELS, abstract_variables, create_model, make_config
from tests.conftest import TINY

KERAS = [name for name, entry in MODELS.items() if entry.framework == "keras"]
TORCH = [name for name, entry in MODELS.items() if entry.framework == "torch"]


@pytest.mark.parametrize("model", [name for name in MODELS if name != "resnet101"])  # which takes long
def test_stored_networks_compute_what_the_originals_did(parity_folder, model):
    x = np.load(parity_folder / "inputs.npz")["x"][:2]
    folder = place(model, parity_folder)
    stored = np.load(folder / f"{model}.npz")
    network = create_model(model)
    logits, aux = jax.jit(network.apply)(golden_weights(model, folder).variables, x)
    if "probs" in stored:
        np.testing.assert_allclose(jax.nn.sigmoid(logits), stored["probs"][:2], atol=1e-4)
    else:
        assert np.abs(logits - stored["logits"][:2]).max() <= 1e-4 * np.abs(stored["logits"]).max()
    for level, weights in aux.items():
        np.testing.assert_allclose(weights, stored[level][:2], atol=1e-4)


def test_a_torch_file_and_its_numpy_archive_hold_the_same(parity_folder):
    pytest.importorskip("torch", reason="torch is not installed")
    ours = import_weights("ecgnet", parity_folder / "ecgnet.pt").variables
    same = import_weights("ecgnet", parity_folder / "ecgnet.weights.npz").variables
    jax.tree.map(np.testing.assert_array_equal, ours, same)


def _arrays(model):
    """(layer, [(original leaf name, array)]) in the original's order and axis order, drawn at random."""
    config = make_config(model, TINY[model])
    shapes = abstract_variables(create_model(model, config))
    rng = np.random.default_rng(0)
    leaves_of = KERAS_LEAVES if model in KERAS else TORCH_LEAVES
    layers = []
    for layer in LAYOUTS[model](config):
        arrays = []
        for leaf in leaves_of[layer.kind]:
            node = shapes[leaf.collection]
            for key in (*layer.path, leaf.name):
                node = node[key]
            array = rng.normal(size=node.shape).astype(np.float32)
            arrays.append((leaf.source, array if leaf.axes is None else np.transpose(array, np.argsort(leaf.axes))))
        layers.append((layer, arrays))
    return config, layers


def _write_h5(path, layers, first_number=15):
    """As keras writes it, with layer numbers that do not start at 0 and layers without weights between."""
    names = []
    with h5py.File(path, "w") as file:
        for number, (layer, arrays) in enumerate(layers, first_number):
            name = f"{layer.kind}_{number}"
            group = file.create_group(name)
            for index, (leaf, array) in enumerate(arrays):
                group.create_dataset(f"{name}/part{index}/{leaf}:0", data=array)
            group.attrs["weight_names"] = [f"{name}/part{i}/{leaf}:0".encode() for i, (leaf, _) in enumerate(arrays)]
            empty = f"re_lu_{number}"
            file.create_group(empty).attrs["weight_names"] = []
            names += [name.encode(), empty.encode()]
        file.attrs["layer_names"] = names


@pytest.mark.parametrize("model", KERAS)
def test_keras_layers_are_matched_by_order_and_kind(model, tmp_path):
    config, layers = _arrays(model)
    _write_h5(tmp_path / "w.h5", layers)
    imported = import_weights(model, tmp_path / "w.h5", config)
    head = imported.variables["params"]["head"]
    np.testing.assert_array_equal(head["kernel"], layers[-1][1][0][1])
    np.testing.assert_array_equal(head["bias"], layers[-1][1][1][1])
    assert len(imported.targets) == sum(len(arrays) for _, arrays in layers)
    expected = abstract_variables(create_model(model, config))
    jax.tree.map(lambda a, b: np.testing.assert_equal(a.shape, b.shape), dict(imported.variables), expected)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda layers: layers[:-1], "the dense layer head is missing"),
        (lambda layers: [*layers, layers[-1]], "layer 'dense_22' is one too many"),
        (lambda layers: [layers[1], *layers[1:]], "where a conv layer .conv0. is expected|has shape"),
        (lambda layers: layers[::-1], "where a conv layer .conv0. is expected|has shape"),
        (lambda layers: [(layers[0][0], [("kernel", np.zeros((9, 9, 9))), layers[0][1][1]]), *layers[1:]], "has shape"),
        (lambda layers: [(layers[0][0], [(n, a * np.nan) for n, a in layers[0][1]]), *layers[1:]], "NaN or infinite"),
    ],
)
def test_keras_files_that_do_not_fit_are_refused(spoil, sentence, tmp_path):
    config, layers = _arrays("mousavi")
    _write_h5(tmp_path / "w.h5", spoil(layers), first_number=22 - len(layers))
    with pytest.raises(UserError, match=sentence):
        import_weights("mousavi", tmp_path / "w.h5", config)


def _state_dict(layers, prefix=""):
    return {f"{prefix}{layer.source}.{leaf}": array for layer, arrays in layers for leaf, array in arrays}


@pytest.mark.parametrize("model", TORCH)
@pytest.mark.parametrize("prefix", ["", "module.", "model."])
def test_torch_arrays_are_matched_by_name(model, prefix, tmp_path):
    config, layers = _arrays(model)
    arrays = _state_dict(layers, prefix) | {f"{prefix}bn1.num_batches_tracked": np.zeros(())}
    np.savez(tmp_path / "w.npz", **arrays)
    imported = import_weights(model, tmp_path / "w.npz", config)
    first, last = layers[0][0], layers[-1][0]
    found = imported.variables["params"]
    np.testing.assert_array_equal(found["head"]["kernel"], arrays[f"{prefix}{last.source}.weight"].T)
    np.testing.assert_array_equal(
        found[first.path[0]]["kernel"], arrays[f"{prefix}{first.source}.weight"].transpose(2, 1, 0)
    )
    assert len(imported.targets) == sum(len(found) for _, found in layers)


def test_what_follows_from_the_length_must_be_of_this_length(tmp_path):
    config, layers = _arrays("s4")
    name = "s4_layers.0.kernel.kernel.omega"
    arrays = _state_dict(layers)
    np.savez(tmp_path / "w.npz", **arrays, **{name: np.zeros((config.length // 2 + 1, 2))})
    assert name not in import_weights("s4", tmp_path / "w.npz", config).targets
    np.savez(tmp_path / "w.npz", **arrays, **{name: np.zeros((126, 2))})
    with pytest.raises(UserError, match=r"'s4_layers.0.kernel.kernel.omega' is of 250 samples, and this s4 of 64"):
        import_weights("s4", tmp_path / "w.npz", config)


def test_a_second_name_of_the_same_array_is_passed_over(tmp_path):
    config, layers = _arrays("xresnet1d101")
    again = {f"4.0.convpath.0.{layer}.0.weight": np.zeros(3) for layer in range(3)}
    np.savez(tmp_path / "w.npz", **_state_dict(layers), **again)
    assert not set(again) & set(import_weights("xresnet1d101", tmp_path / "w.npz", config).targets)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda arrays: arrays.pop("fc.bias"), "'fc.bias' is missing"),
        (lambda arrays: arrays.update(extra=np.zeros(3)), "'extra' is one too many"),
        (lambda arrays: arrays.update({"fc.bias": np.zeros(7)}), "'fc.bias' has shape .7,., not .5,."),
    ],
)
def test_torch_files_that_do_not_fit_are_refused(spoil, sentence, tmp_path):
    config, layers = _arrays("ecgnet")
    arrays = _state_dict(layers)
    spoil(arrays)
    np.savez(tmp_path / "w.npz", **arrays)
    with pytest.raises(UserError, match=sentence):
        import_weights("ecgnet", tmp_path / "w.npz", config)


@pytest.mark.parametrize(
    ("model", "name", "content", "sentence"),
    [
        ("imle_net", "missing.h5", None, "no such weight file"),
        ("imle_net", "w.npz", b"", "imle_net takes weights of keras, in a file that ends in .h5"),
        ("ecgnet", "w.h5", b"", "ecgnet takes weights of torch"),
        ("imle_net", "w.h5", b"not HDF5", "is not a keras weight file"),
        ("ecgnet", "w.npz", b"PK\x03\x04 broken", "is damaged|is not a numpy archive"),
        ("ecgnet", "w.npz", b"", "is damaged|is not a numpy archive"),
    ],
)
def test_files_of_another_kind_are_refused(model, name, content, sentence, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        import_weights(model, tmp_path / name)


class Bomb:
    """What a pickle runs when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_pickled_arrays_are_never_loaded(tmp_path):
    config, layers = _arrays("ecgnet")
    arrays = _state_dict(layers)
    arrays["fc.bias"] = np.full(arrays["fc.bias"].shape, Bomb(tmp_path / "ran"), dtype=object)
    np.savez(tmp_path / "w.npz", **arrays)
    with pytest.raises(UserError, match=r"w\.npz does not fit ecgnet: 'fc.bias' holds no numbers"):
        import_weights("ecgnet", tmp_path / "w.npz", config)
    (tmp_path / "w.pt").write_bytes(pickle.dumps({"fc.bias": Bomb(tmp_path / "ran")}))
    with pytest.raises(UserError, match=r"is not a torch state dict|needs torch"):
        import_weights("ecgnet", tmp_path / "w.pt", config)
    assert not (tmp_path / "ran").exists()


def test_an_archive_that_unpacks_to_far_more_is_refused_before_it_is_unpacked(tmp_path):
    np.savez_compressed(tmp_path / "w.npz", **{"fc.bias": np.zeros((2**26,), np.int8)})
    assert (tmp_path / "w.npz").stat().st_size < 2**20
    with pytest.raises(UserError, match=r"holds 67,108,992 bytes; the weights of ecgnet have .*: it is another file"):
        import_weights("ecgnet", tmp_path / "w.npz", make_config("ecgnet", TINY["ecgnet"]))


def _first_dataset(file):
    found = []
    file.visititems(lambda _, item: found.append(item) if isinstance(item, h5py.Dataset) else None)
    return found[0]


def _h5_with(tmp_path, spoil):
    """A keras file of a tiny mousavi, whose first array `spoil` writes anew into its group under its name."""
    config, layers = _arrays("mousavi")
    _write_h5(tmp_path / "w.h5", layers)
    with h5py.File(tmp_path / "w.h5", "r+") as file:
        dataset = _first_dataset(file)
        group, name, array = dataset.parent, dataset.name.rsplit("/", 1)[-1], dataset[()]
        del group[name]
        spoil(group, name, array)
    return tmp_path / "w.h5", config


def _in_another_file(group, name, array):
    with h5py.File(group.file.filename + ".other", "w") as other:
        other["x"] = array
    group[name] = h5py.ExternalLink(group.file.filename + ".other", "x")


def _raw_in_another_file(group, name, array):
    secret = Path(group.file.filename + ".secret")
    secret.write_bytes(array.tobytes())
    group.create_dataset(name, array.shape, array.dtype, external=[(str(secret), 0, array.nbytes)])


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (_in_another_file, "lies in another file"),
        (_raw_in_another_file, "lies in another file"),
        (lambda group, name, array: group.create_dataset(name, data=h5py.Empty("f4")), "larger than itself"),
        (
            lambda group, name, array: group.create_dataset(
                name, array.shape, "f4", chunks=(2**21, *array.shape[1:]), maxshape=(None,) * array.ndim
            ),
            "in pieces larger than itself",
        ),
        (lambda group, name, array: group.create_dataset(name, array.shape, h5py.string_dtype()), "holds no numbers"),
        (lambda group, name, array: group.create_dataset(name, (2**20,) * 3, "f4", chunks=(8, 8, 8)), "has shape"),
        (lambda group, name, array: group.create_dataset(name, data=array.astype("f8") * 1e300), "infinite"),
        (lambda group, name, array: group.create_group(name), "is not a keras weight file"),
    ],
)
def test_hostile_keras_files_are_refused(tmp_path, spoil, sentence):
    path, config = _h5_with(tmp_path, spoil)
    with pytest.raises(UserError, match=sentence):
        import_weights("mousavi", path, config)


def test_pieces_that_cannot_be_unpacked_are_named(tmp_path):
    def compress(group, name, array):
        group.create_dataset(name, data=array, compression="gzip", chunks=array.shape)

    path, config = _h5_with(tmp_path, compress)
    data = path.read_bytes()
    with h5py.File(path) as file:
        chunk = _first_dataset(file).id.get_chunk_info(0)
    middle = chunk.byte_offset + chunk.size // 2
    path.write_bytes(data[:middle] + bytes(20) + data[middle + 20 :])
    with pytest.raises(UserError, match=r"w\.h5: '.*' is damaged .*; fetch the file again"):
        import_weights("mousavi", path, config)
