"""Trainings that go on after a kill: the state of one, written after every epoch."""

from __future__ import annotations

import io
import json
import logging
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
from skorch.callbacks import Callback, LRScheduler, PassthroughScoring
from torch.utils.data import Subset

from .._version import __version__
from ..data import image_key
from ..storage.files import replace_bytes
from ..storage.tensors import dump_tensors, load_tensors, own_tensors
from ..storage.values import pack
from .device import generator_states, set_generator_states
from .net import BestWeights, Net

logger = logging.getLogger("robustmm")

# Parameters that do not change what is learned.
_NO_MATTER = frozenset({"cache", "checkpoint_dir", "device", "image_root", "verbose"})


def fit_or_resume(
    net: Net, train: Subset, held_out: Subset, name: str, parameters: dict
) -> Path:
    """Train a net, from the beginning or from where an equal training was killed.

    Parameters
    ----------
    net : Net
        About to be trained.
    train, held_out : Subset
        Of a MultimodalDataset.
    name : str
        The class of the estimator.
    parameters : dict
        Of the estimator, ``checkpoint_dir`` among them.

    Returns
    -------
    Path
        The file with the state after the last epoch, to be removed when the estimator
        is fitted.

    Raises
    ------
    ValueError
        If the file is damaged.
    """
    key = fit_key(net, train, held_out, name, parameters)
    path = Path(parameters["checkpoint_dir"]) / f"{name}-{key}.checkpoint"
    checkpoint = EpochCheckpoint(path)
    # The last of all callbacks: what it writes is what the next epoch starts from.
    net.callbacks.append(checkpoint)
    if checkpoint.n_epochs:
        logger.info("%s goes on after epoch %d (%s)", name, checkpoint.n_epochs, path)
    net.fit(train, epochs=net.max_epochs - checkpoint.n_epochs)
    net.callbacks.remove(checkpoint)
    return path


def fit_key(
    net: Net, train: Subset, held_out: Subset, name: str, parameters: dict
) -> str:
    """Return a hash of all that a training depends on, in hexadecimal.

    The class, its parameters, the rows with labels and weights, the frozen weights, the
    tensors that training starts from (with what earlier tasks have learned), what the
    module is told, the state of the generator, and device and precision.
    """
    digest, module = blake2b(digest_size=16), net.module_
    about = [name, __version__, module.backbone.fingerprint]
    about += [str(torch.device(net.device)), str(net.autocast)]
    about += sorted((net.forward_params or {}).items())
    about += [_text_of(parameters[k]) for k in sorted(set(parameters) - _NO_MATTER)]
    digest.update(json.dumps(about).encode())
    digest.update(net.draws.states[0].numpy())
    for tensor_name, value in dump_tensors(module).items():
        digest.update(f"{tensor_name}{value.shape}".encode() + value.tobytes())
    for part in (train, held_out):
        for piece in _content(part):
            digest.update(piece)
    return digest.hexdigest()


def _text_of(value) -> str:
    """The same text for the same parameter in another process."""
    arrays = {}
    try:
        text = json.dumps(pack(value, arrays, ""), sort_keys=True)
    except TypeError:  # callbacks and other objects count by their type
        if isinstance(value, dict):
            return str([(str(k), _text_of(v)) for k, v in value.items()])
        return f"{type(value).__module__}.{type(value).__qualname__}"
    return text + str([(k, v.tolist()) for k, v in arrays.items()])


def _content(part: Subset):
    """Yield what identifies the rows of a subset, in order."""
    data, indices = part.dataset, np.asarray(part.indices, dtype=np.int64)
    yield f"{len(indices)} rows".encode()
    yield np.ascontiguousarray(data.targets[indices])
    yield np.ascontiguousarray(data.weights[indices])
    for i in indices.tolist():
        cell, text = data.rows.images[i], data.rows.texts[i]
        yield repr(text).encode("utf-8", "backslashreplace")
        if cell is not None and data.transform is not None:
            yield image_key(cell, data.rows.image_root, data.transform)


class EpochCheckpoint(Callback):
    """Write the state of a training after every epoch; start from a state found.

    Parameters
    ----------
    path : Path
        The file, which is replaced in one step, so that a kill leaves a whole one.

    Attributes
    ----------
    n_epochs : int
        Epochs that the state found has behind it.

    Raises
    ------
    ValueError
        If the file is there and damaged.
    """

    def __init__(self, path: Path):
        self.path = path
        self.found = None
        if path.exists():
            try:
                # Tensors and plain values only: nothing in the file is executed.
                self.found = torch.load(path, map_location="cpu", weights_only=True)
                self.found["history"] = json.loads(self.found["history"])
            except Exception as error:
                raise ValueError(
                    f"The checkpoint {str(path)!r} is damaged ({error}); remove it to "
                    "train from the beginning."
                ) from error
        self.n_epochs = len(self.found["history"]) if self.found else 0

    def on_train_begin(self, net: Net, X=None, y=None, **kwargs) -> None:
        """Go back to the state found; called when all other callbacks are ready."""
        state, self.found = self.found, None
        if state is None:
            return
        tensors = {name: value.numpy() for name, value in state["tensors"].items()}
        load_tensors(net.module_, tensors)
        net.optimizer_.load_state_dict(state["optimizer"])
        net.history.extend(state["history"])
        for callback, saved in zip(_stateful(net), state["callbacks"], strict=True):
            _set_state(callback, saved)
        set_generator_states(torch.device(net.device), state["generators"])

    def on_epoch_end(self, net: Net, **kwargs) -> None:
        """Write the state that the next epoch starts from."""
        tensors = own_tensors(net.module_)
        state = {
            "tensors": {name: t.detach().cpu() for name, t in tensors.items()},
            "optimizer": net.optimizer_.state_dict(),
            "history": json.dumps(net.history.to_list(), default=float),
            "callbacks": [_get_state(callback) for callback in _stateful(net)],
            "generators": generator_states(torch.device(net.device)),
        }
        stream = io.BytesIO()
        torch.save(state, stream)
        replace_bytes(self.path, stream.getvalue())


def _stateful(net: Net) -> list[Callback]:
    kinds = (BestWeights, LRScheduler, PassthroughScoring)
    return [callback for _, callback in net.callbacks_ if isinstance(callback, kinds)]


def _get_state(callback: Callback) -> dict:
    if isinstance(callback, LRScheduler):
        return callback.lr_scheduler_.state_dict()
    if isinstance(callback, PassthroughScoring):
        return {"best_score_": float(callback.best_score_)}
    return {
        "best_loss_": float(callback.best_loss_),
        "waited_": callback.waited_,
        "best_": callback.best_,
    }


def _set_state(callback: Callback, state: dict) -> None:
    if isinstance(callback, LRScheduler):
        callback.lr_scheduler_.load_state_dict(state)
    else:
        vars(callback).update(state)
