"""Weights that this project, or somebody else, has trained: read from a file, and fitted into a network.

Files differ in what they wrap the network in (DataParallel, a layer of normalisation, a section of a checkpoint) and in
how its layers are called. Reading unwraps the file; fitting matches names, or else the order of definition.
"""

import pickle
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from components.model.card import load_card
from components.model.networks import Normalize
from components.model.weights_files import TORCHVISION, WEIGHTS_KEY, locate
from components.tools.hashing import hash_file

SECTIONS = ("state_dict", "model", "network")
"""Keys under which checkpoints nest the weights, in the order in which they are tried."""
NORMALISATION = re.compile(r"(.*?)(mean|std)s?|(.*?)(sd)s")
"""Names of a normalisation layer's constants: mean and std here; means and sds in Cohen's code and what follows it."""
SHOWN = 3
"""How many names a message lists."""


@dataclass(frozen=True)
class Pretrained:
    """Weights as a file holds them."""

    origin: str
    """The value of the parameter that names them, for messages."""
    tensors: dict[str, Tensor]
    in_order: bool
    """Whether the order of `tensors` is that in which the layers were defined. Files of safetensors lose it."""
    mean: list[float] | None = None
    std: list[float] | None = None
    """The normalisation in front of the network; None where the file does not say."""
    key: str = WEIGHTS_KEY
    """The parameter that names them."""


# --- reading -----------------------------------------------------------------------------------------------------


def read(weights: str, network: str, root: Path, key: str = WEIGHTS_KEY) -> Pretrained:
    """Read the weights that a parameter names.

    Args:
        network: train.network, which torchvision's named weights belong to.
        root: where a relative path starts.
        key: the parameter.

    Raises:
        ValueError: there is no such file, it cannot be read without running code that it contains, it holds no weights,
            or some are not finite.
    """
    if weights.startswith(TORCHVISION):
        found = _fetch(weights, network, key)
    elif (root / Path(weights).expanduser()).is_dir():
        found = _read_model_folder(weights, locate(weights, root, key))
    elif (path := locate(weights, root, key)).suffix == ".safetensors":
        found = Pretrained(weights, _read_safetensors(path), in_order=False)
    else:
        found = Pretrained(weights, _weights_in(_read_torch(path), path), in_order=True)
    for name, tensor in found.tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(f"{key} is {weights!r}: {name} holds values that are not finite")
    return replace(found, key=key)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_safetensors(path.read_bytes())
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a whole safetensors file ({error})") from None


def _read_torch(path: Path) -> Any:
    """What torch.save has written, if it is made of tensors and plain values alone; no code of the file is run."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not re.search("unsupported (global|class)", str(error), re.IGNORECASE):
            raise ValueError(f"{path} is neither a torch file nor named .safetensors") from None
        raise ValueError(
            f"{path} holds Python objects beside tensors, which could run code when they are loaded: save the "
            "network's state_dict() alone, in the program that made the file"
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ValueError(f"{path} is torn or not a torch file ({' '.join(str(error).split())[:100]})") from None


def _weights_in(loaded: Any, path: Path) -> dict[str, Tensor]:
    """The state dict, which may be a section of a checkpoint."""
    candidates = [loaded, *(loaded.get(name) for name in SECTIONS)] if isinstance(loaded, dict) else []
    for candidate in candidates:
        if isinstance(candidate, dict) and candidate and all(isinstance(value, Tensor) for value in candidate.values()):
            return dict(candidate)
    has = listed(loaded) if isinstance(loaded, dict) else f"a {type(loaded).__name__}"
    raise ValueError(f"{path} holds {has}, but no weights by name, neither at the top nor in {', '.join(SECTIONS)}")


def _read_model_folder(weights: str, path: Path) -> Pretrained:
    """Weights of this project, with the normalisation that their card states."""
    card = load_card(path.parent)
    if hash_file(path) != card.weights_sha256:
        raise ValueError(f"{path} is not the file that its card was written for: restore both")
    channels = card.image_shape[0]
    mean, std = card.mean or [0.0] * channels, card.std or [1.0] * channels
    return Pretrained(weights, _read_safetensors(path), in_order=False, mean=mean, std=std)


def _fetch(weights: str, network: str, key: str) -> Pretrained:
    """Named weights of one of torchvision's networks, with the normalisation that they were trained with."""
    from torchvision.models import get_model_weights  # seconds to import, for these weights alone

    known = get_model_weights(network.removeprefix(TORCHVISION))
    name = weights.removeprefix(TORCHVISION)
    if name not in known.__members__:
        raise ValueError(f"{key} is {weights!r}: {network} has {', '.join(known.__members__) or 'none'}")
    chosen = known[name]
    try:
        tensors = chosen.get_state_dict(check_hash=True, progress=False, map_location="cpu")
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"{key} is {weights!r}: they cannot be fetched here ({' '.join(str(error).split())}): fetch "
            f"{chosen.url} elsewhere and give the path of that file"
        ) from None
    preset = chosen.transforms()
    return Pretrained(weights, dict(tensors), in_order=True, mean=list(preset.mean), std=list(preset.std))


# --- fitting -----------------------------------------------------------------------------------------------------


def fit_into(network: nn.Module, found: Pretrained, *, may_replace_head: bool) -> str:
    """Copy weights into a network, in place: all of them, or none and an error.

    Layers are matched by their names, without what wraps the network. If no name is that of a layer here, they are
    matched in the order of their definition, where kinds and shapes are the same one by one.

    Args:
        network: as `networks.build` gives it: with its normalisation, if it has one.
        may_replace_head: whether the last layer with parameters may have another shape in the file. It keeps its
            initial weights then.

    Returns:
        What was done, in one line.

    Raises:
        ValueError: something is missing, left over or of another shape, or the normalisation is another one.
    """
    inner = without_normalisation(network)
    wanted = inner.state_dict()
    if set(bare_names(wanted)) != set(bare_names(found.tensors)):
        found = _apart_from_normalisation(found)
    _check_normalisation(network, found)
    if not any(_leaf(name) == "num_batches_tracked" for name in found.tensors):  # files of old versions of torch
        wanted = {name: tensor for name, tensor in wanted.items() if _leaf(name) != "num_batches_tracked"}
    pairs, how = _matched(wanted, found)
    head = last_layer(inner)[0]
    differing = [name for name in wanted if wanted[name].shape != pairs[name].shape]
    dot = f"{head}." if head else ""
    if outside := [name for name in differing if name not in (f"{dot}weight", f"{dot}bias")]:
        shapes = [f"{name} {_shape(pairs[name])} instead of {_shape(wanted[name])}" for name in outside]
        raise ValueError(f"{found.key} is {found.origin!r}: weights of other shapes: {listed(shapes)}")
    if differing and not may_replace_head:
        name = differing[0]
        raise ValueError(
            f"{found.key} is {found.origin!r}: the last layer, {head}, has {_shape(pairs[name])} instead of "
            f"{_shape(wanted[name])}, and with train.epochs 0 nothing may be left untrained: give the images of its "
            "classes, or train"
        )
    left_out = {name for name in wanted if differing and name.startswith(dot)}
    with torch.no_grad():
        for name, tensor in wanted.items():
            if name not in left_out:
                tensor.copy_(pairs[name])
    anew = f"; the last layer, {head}, is new: its shape is another one in the file" if differing else ""
    return f"weights of {found.origin}, {how}{anew}"


def last_layer(network: nn.Module) -> tuple[str, nn.Module]:
    """The layer that was defined last among those with parameters of their own, and its name."""
    layers = [(name, module) for name, module in network.named_modules() if any(True for _ in module.parameters(False))]
    if not layers:
        raise ValueError("the network has no parameters")
    return layers[-1]


def without_normalisation(network: nn.Module) -> nn.Module:
    """The network behind the normalisation that `networks.build` puts in front of it."""
    if isinstance(network, nn.Sequential) and len(network) == 2 and isinstance(network[0], Normalize):
        return network[1]
    return network


def _apart_from_normalisation(found: Pretrained) -> Pretrained:
    """The weights without the constants of a normalisation layer, a mean and a std, if they hold those of one."""
    layers: dict[str, dict[str, str]] = {}
    for name in found.tensors:
        if match := NORMALISATION.fullmatch(name):
            layer, kind = match[1] or match[3] or "", match[2] or match[4]
            layers.setdefault(layer, {})["std" if kind == "sd" else kind] = name
    pairs = [names for layer, names in layers.items() if len(names) == 2 and layer[-1:] in ("", ".")]
    if len(pairs) != 1:
        return found
    (names,) = pairs
    mean, std = (found.tensors[names[kind]].flatten().tolist() for kind in ("mean", "std"))
    others = {name: tensor for name, tensor in found.tensors.items() if name not in names.values()}
    return replace(found, tensors=others, mean=mean, std=std)


def _check_normalisation(network: nn.Module, found: Pretrained) -> None:
    """Raises ValueError if the weights were trained with another normalisation than that in front of `network`."""
    if found.mean is None or found.std is None:
        return
    mean, std = [0.0], [1.0]
    if without_normalisation(network) is not network:
        mean, std = (value.flatten().tolist() for value in (network[0].mean, network[0].std))  # type: ignore[index]
    in_use = torch.tensor([mean, std]).expand(2, max(len(mean), len(found.mean)))
    theirs = torch.tensor([found.mean, found.std])
    if in_use.shape != theirs.shape or not torch.allclose(in_use, theirs, rtol=1e-4, atol=1e-6):
        own = [[round(value, 6) for value in values] for values in (found.mean, found.std)]
        raise ValueError(
            f"{found.key} is {found.origin!r}: trained with the normalisation mean {own[0]} and std {own[1]}, which "
            f"is not in use: set train.mean: {own[0]} and train.std: {own[1]}"
        )


def _matched(wanted: dict[str, Tensor], found: Pretrained) -> tuple[dict[str, Tensor], str]:
    """The file's tensor for each of the network's, and by what they were matched."""
    ours, theirs = bare_names(wanted), bare_names(found.tensors)
    if set(ours) == set(theirs):
        return {ours[name]: found.tensors[theirs[name]] for name in ours}, "matched by name"
    if found.in_order and not set(ours) & set(theirs) and _same_kinds(wanted, found.tensors):
        return dict(zip(wanted, found.tensors.values(), strict=True)), "matched by the order of their definition"
    missing = [ours[name] for name in ours if name not in theirs]
    left_over = [theirs[name] for name in theirs if name not in ours]
    parts = [f"{what}: {listed(names)}" for what, names in (("missing", missing), ("left over", left_over)) if names]
    raise ValueError(f"{found.key} is {found.origin!r}: not the weights of this network; {'; '.join(parts)}")


def bare_names(names: Iterable[str]) -> dict[str, str]:
    """Names without DataParallel's `module` and without what all of them start with, each with its full name."""
    full = list(names)
    paths = [tuple(part for part in name.split(".") if part != "module") for name in full]
    if len(set(paths)) < len(paths):  # a network that has layers called `module` itself
        paths = [tuple(name.split(".")) for name in full]
    while paths and all(len(path) > 1 and path[0] == paths[0][0] for path in paths):
        paths = [path[1:] for path in paths]
    return {".".join(path): name for path, name in zip(paths, full, strict=True)}


def _same_kinds(wanted: dict[str, Tensor], given: dict[str, Tensor]) -> bool:
    """Whether two orders of tensors are the same in kind (weight, bias, ...) and shape, but for the last layer's
    shape."""
    if [*map(_leaf, wanted)] != [*map(_leaf, given)]:
        return False
    head = list(wanted)[-1].rpartition(".")[0]
    return all(
        ours.shape == theirs.shape or (name.rpartition(".")[0] == head and ours.dim() == theirs.dim())
        for (name, ours), theirs in zip(wanted.items(), given.values(), strict=True)
    )


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"


def listed(names: Iterable[Any]) -> str:
    """The first few of some names, and how many there are in all."""
    names = [str(name) for name in names]
    more = f", ... ({len(names)} in all)" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
