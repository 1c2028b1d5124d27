"""Reading weights of the originals: keras `.h5`, torch `.pt`, or `.npz` keyed by state-dict name.

These files come from strangers. Nothing in them is executed, and no array is read before its shape and type are known to
be those of the network.
"""

import math
import re
import zipfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from imlenet_jax.errors import UserError
from imlenet_jax.interop.layout import KERAS_LEAVES, LAYOUTS, NODES, REPEATED, TORCH_LEAVES, Leaf
from imlenet_jax.models import Config, abstract_variables, create_model, entry, make_config

PREFIX = re.compile(r"^(module|model)\.")  # several GPUs leave the first, lightning the second


class Source(NamedTuple):
    """One array of a weight file, not read yet: its name there, its shape, whether it is of numbers, how to read it."""

    name: str
    shape: tuple[int, ...]
    numeric: bool
    read: Callable[[], np.ndarray]


class Target(NamedTuple):
    """Where an array belongs: `variables[collection][path...]`."""

    collection: str
    path: tuple[str, ...]


class Imported(NamedTuple):
    """A network's variables (float32), and for every array of the file, by its name there, where it went."""

    variables: dict[str, Any]
    targets: dict[str, Target]


def import_weights(model: str, path: Path, config: Config | None = None) -> Imported:
    """Read the weights of an original network.

    Keras layers are matched by order and kind, since layer numbers differ between files; torch arrays by name, with
    or without the prefix that several GPUs or lightning leave.

    Raises:
        UserError: the file is missing, of another format, or does not fit; the first mismatch is named.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such weight file; check --weights")
    framework = entry(model).framework
    formats = {"keras": (".h5", ".hdf5"), "torch": (".pt", ".pth", ".npz")}[framework]
    if path.suffix not in formats:
        raise UserError(f"{path}: {model} takes weights of {framework}, in a file that ends in {' or '.join(formats)}")
    _check_size(model, config, path)
    with ExitStack() as stack:
        if framework == "keras":
            pairs = _match_keras(model, config, path, _open_h5(path, stack))
        else:
            arrays = _open_npz(path, stack) if path.suffix == ".npz" else _open_torch(path)
            pairs = _match_torch(model, config, path, arrays)
        return _assemble(model, config, path, pairs)


def import_arrays(model: str, arrays: Mapping[str, np.ndarray], config: Config | None = None) -> Imported:
    """The same from a torch network's state dict in memory."""
    sources = {name: Source(name, array.shape, True, partial(np.asarray, array)) for name, array in arrays.items()}
    origin = Path("state dict")
    return _assemble(model, config, origin, _match_torch(model, config, origin, sources))


def _check_size(model: str, config: Config | None, path: Path) -> None:
    """Refuse a file that is, or would be once unpacked, far larger than the network's weights."""
    parameters = sum(array.size for array in jax.tree.leaves(abstract_variables(create_model(model, config))))
    most = 2 * 8 * parameters + 2**24  # float64, and as much again for whatever else is in the file
    size = path.stat().st_size
    if path.suffix not in (".h5", ".hdf5") and zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                size = max(size, sum(member.file_size for member in archive.infolist()))
        except Exception as error:  # zipfile raises many types for a damaged directory
            raise UserError(f"{path} is damaged ({_first_line(error)}); fetch it again") from None
    if size > most:
        raise UserError(
            f"{path} holds {size:,} bytes; the weights of {model} have {4 * parameters:,}: it is another file"
        )


Pairs = list[tuple[Source, Leaf, tuple[str, ...]]]


def _match_keras(model: str, config: Config | None, path: Path, layers: list[tuple[str, list[Source]]]) -> Pairs:
    pairs: Pairs = []
    expected = list(LAYOUTS[model](config or make_config(model)))
    for (layer_name, sources), layer in zip(layers, expected, strict=False):
        leaves = KERAS_LEAVES[layer.kind]
        found = [source.name.rsplit("/", 1)[-1].split(":")[0] for source in sources]
        if found != [leaf.source for leaf in leaves]:
            raise UserError(
                f"{path} is not a weight file of {model}: layer '{layer_name}' holds {', '.join(found)} "
                f"where a {layer.kind} layer ({'/'.join(layer.path)}) is expected"
            )
        pairs += [(source, leaf, layer.path) for source, leaf in zip(sources, leaves, strict=True)]
    if len(layers) != len(expected):
        if len(layers) > len(expected):
            first = f"layer '{layers[len(expected)][0]}' is one too many"
        else:
            first = f"the {expected[len(layers)].kind} layer {'/'.join(expected[len(layers)].path)} is missing"
        raise UserError(
            f"{path} is not a weight file of {model}: {first} ({len(layers)} layers with weights, {len(expected)} expected)"
        )
    return pairs


def _match_torch(model: str, config: Config | None, path: Path, sources: Mapping[str, Source]) -> Pairs:
    left = {PREFIX.sub("", name): source for name, source in sources.items() if not REPEATED.search(name)}
    pairs: Pairs = []
    config = config or make_config(model)
    for name in [name for name in left if name.endswith(NODES)]:
        shape = left.pop(name).shape
        if shape != (config.length // 2 + 1, 2):
            samples = 2 * (shape[0] - 1) if shape else 0
            raise UserError(f"{path}: '{name}' is of {samples} samples, and this {model} of {config.length}")
    for layer in LAYOUTS[model](config):
        for leaf in TORCH_LEAVES[layer.kind]:
            name = f"{layer.source}.{leaf.source}"
            if name not in left:
                raise UserError(f"{path} is not a weight file of {model}: '{name}' is missing")
            pairs.append((left.pop(name), leaf, layer.path))
    if left:
        raise UserError(f"{path} is not a weight file of {model}: '{next(iter(left))}' is one too many")
    return pairs


def _assemble(model: str, config: Config | None, path: Path, pairs: Pairs) -> Imported:
    expected = abstract_variables(create_model(model, config))
    variables: dict[str, Any] = {collection: {} for collection in expected}
    targets = {}
    for source, leaf, module in pairs:
        target = Target(leaf.collection, (*module, leaf.name))
        shape = _at(expected, target).shape
        theirs = shape if leaf.axes is None else tuple(shape[i] for i in np.argsort(leaf.axes))
        if tuple(source.shape) != theirs:  # before reading, so that a hostile file allocates nothing
            raise UserError(f"{path} does not fit {model}: '{source.name}' has shape {source.shape}, not {theirs}")
        if not source.numeric:
            raise UserError(f"{path} does not fit {model}: '{source.name}' holds no numbers")
        try:
            with np.errstate(over="ignore"):  # what is beyond float32 becomes infinite, and is refused below
                array = np.asarray(leaf.convert(source.read()), np.float32)
        except Exception as error:  # every library has errors of its own for bytes that cannot be decoded
            raise UserError(
                f"{path}: '{source.name}' is damaged ({_first_line(error)}); fetch the file again"
            ) from None
        if not np.isfinite(array).all():
            raise UserError(f"{path}: '{source.name}' holds NaN or infinite values; the file cannot be used")
        _put(variables, target, array)
        targets[PREFIX.sub("", source.name)] = target
    return Imported(variables, targets)


def _at(tree: Any, target: Target) -> Any:
    node = tree[target.collection]
    for key in target.path:
        node = node[key]
    return node


def _put(tree: dict[str, Any], target: Target, array: np.ndarray) -> None:
    node = tree[target.collection]
    for key in target.path[:-1]:
        node = node.setdefault(key, {})
    node[target.path[-1]] = array


def _open_h5(path: Path, stack: ExitStack) -> list[tuple[str, list[Source]]]:
    """The layers that hold weights, in the order of the attribute `layer_names` (h5py's own is alphabetical)."""
    try:
        import h5py
    except ImportError:
        raise UserError("reading .h5 weights needs h5py: pip install 'imlenet_jax[convert]'") from None
    try:
        file = stack.enter_context(h5py.File(path, "r"))
        root = file.get("model_weights", file)
        layers = []
        for layer in _names(root, "layer_names"):
            group = root[layer]
            sources = [_h5_source(file, name, group[name]) for name in _names(group, "weight_names")]
            if sources:
                layers.append((layer, sources))
        return layers
    except (OSError, KeyError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{path} is not a keras weight file ({_first_line(error)}); write it with save_weights"
        ) from None


def _h5_source(file: Any, name: str, data: Any) -> Source:
    """A dataset that lies in this very file, as one piece or in pieces no larger than itself."""
    if data.file.filename != file.filename or data.external or data.is_virtual:
        raise ValueError(f"'{name}' lies in another file")
    if data.shape is None or math.prod(data.chunks or ()) > max(math.prod(data.shape), 2**20):
        raise ValueError(f"'{name}' is stored in pieces larger than itself")
    return Source(name, data.shape, data.dtype.kind in "fiu", partial(data.__getitem__, ()))


def _names(group: Any, attribute: str) -> list[str]:
    names = group.attrs[attribute]
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def _open_npz(path: Path, stack: ExitStack) -> dict[str, Source]:
    try:
        file = stack.enter_context(path.open("rb"))  # numpy leaves it open where the archive is broken
        if not zipfile.is_zipfile(file):
            raise ValueError("it is no zip file")  # numpy would try it as a pickle, and advise to allow that
        archive = np.load(file, allow_pickle=False)
        stack.enter_context(archive)
        return {name: _npz_source(archive, name) for name in archive.files}
    except (OSError, ValueError, EOFError, AttributeError, TypeError, KeyError) as error:
        raise UserError(f"{path} is not a numpy archive of plain arrays ({_first_line(error)})") from None
    except Exception as error:  # zipfile and zlib raise types of their own on damaged archives
        raise UserError(f"{path} is damaged ({_first_line(error)}); fetch it again") from None


def _npz_source(archive: Any, name: str) -> Source:
    """An array of which only the header has been read."""
    member = name if name in archive.zip.namelist() else f"{name}.npy"
    with archive.zip.open(member) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    return Source(name, shape, dtype.kind in "fiu", partial(archive.__getitem__, name))


def _open_torch(path: Path) -> dict[str, Source]:
    try:
        import torch
    except ImportError:
        raise UserError(
            f"reading {path} needs torch: pip install 'imlenet_jax[torch]', or pass the weights as .npz"
        ) from None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        state = state.get("state_dict", state.get("model", state))  # as lightning and fastai save it
        return {name: Source(name, tuple(t.shape), not t.is_complex(), partial(_numpy, t)) for name, t in state.items()}
    except Exception as error:  # torch raises many types for a file that is not a state dict
        # torch itself would advise to load the file unsafely.
        raise UserError(f"{path} is not a torch state dict ({type(error).__name__}); save model.state_dict()") from None


def _numpy(tensor: Any) -> np.ndarray:
    return tensor.detach().numpy()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
