"""Trainings that go on after a kill: the state of one, written after every epoch."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path

import joblib
import numpy as np
import torch
from skorch.callbacks import Callback, LRScheduler, PassthroughScoring
from torch.utils.data import Subset

from .._version import __version__
from ..data import BadImage, image_key
from ..storage.archive import dump_archive, load_archive
from ..storage.files import replace_bytes
from ..storage.tensors import dump_tensors, load_tensors, own_tensors
from .device import generator_states, set_generator_states
from .net import Net
from .processes import current
from .watch import BestWeights

logger = logging.getLogger("robustmm")

# Parameters that do not change what is learned.
_NO_MATTER = frozenset({"cache", "checkpoint_dir", "device", "image_root", "verbose"})
# The rows of a step, which the name of the file says.
_IN_NAME = frozenset({"batch_size"})
_PARTS = {"tensors": dict, "optimizer": dict, "callbacks": list, "generators": list}
# A file holds the tensors a few times over: moments, the best; and the history.
_TIMES, _HISTORY = 16, 2**28


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
    processes = current()

    def place() -> Path:
        key = fit_key(net, train, held_out, name, parameters)
        folder = Path(parameters["checkpoint_dir"])
        return _place(folder, f"{name}-{key}", processes.size, net.batch_size)

    path = processes.from_first(place)
    size = sum(tensor.nbytes for tensor in own_tensors(net.module_).values())
    checkpoint = EpochCheckpoint(path, net.max_epochs, _TIMES * size + _HISTORY)
    # The last of all callbacks: what it writes is what the next epoch starts from.
    net.callbacks.append(checkpoint)
    if checkpoint.n_epochs:
        logger.info("%s goes on after epoch %d (%s)", name, checkpoint.n_epochs, path)
    net.fit(train, epochs=net.max_epochs - checkpoint.n_epochs)
    net.callbacks.remove(checkpoint)
    return path


def _place(folder: Path, key: str, size: int, batch_size: int) -> Path:
    """Return the file of a training whose steps have as many rows, whoever takes them.

    Raises
    ------
    ValueError
        If there is one of as many rows in a process, but of another number of these.
    """
    for path in sorted(folder.glob(f"{key}-*x*.checkpoint")):
        other, rows = map(int, path.stem.rpartition("-")[2].split("x"))
        if other * rows == size * batch_size:
            return path
        if rows == batch_size:
            raise ValueError(
                f"batch_size times the number of processes must stay {other * rows} to "
                f"go on from {str(path)!r}, got {batch_size} times {size}; remove the "
                "file to start anew."
            )
    return folder / f"{key}-{size}x{batch_size}.checkpoint"


def fit_key(
    net: Net, train: Subset, held_out: Subset, name: str, parameters: dict
) -> str:
    """Return a hash of all that a training depends on, in hexadecimal.

    The class, its parameters, the rows with labels and weights, the frozen weights, the
    tensors that training starts from (with what earlier tasks have learned), what the
    module is told, the state of the generator, and device and precision.
    """
    digest, module = blake2b(digest_size=16), net.module_
    about = [name, __version__, module.backbone.fingerprint, module.backbone.inputs]
    about += [torch.device(net.device).type, str(net.autocast)]
    about += sorted((net.forward_params or {}).items())
    about += [
        _identity(parameters[k])
        for k in sorted(set(parameters) - _NO_MATTER - _IN_NAME)
    ]
    digest.update(json.dumps(about).encode())
    digest.update(net.draws.states[0].numpy())
    for tensor_name, value in dump_tensors(module).items():
        digest.update(f"{tensor_name}{value.shape}".encode() + value.tobytes())
    for part in (train, held_out):
        for piece in _content(part):
            digest.update(piece)
    return digest.hexdigest()


def _identity(value) -> str:
    """The same text for the same parameter in another process."""
    if isinstance(value, dict):
        value = {k: _identity(v) for k, v in value.items()}
    elif isinstance(value, list | tuple):
        value = type(value).__name__, [_identity(part) for part in value]
    elif hasattr(value, "get_params") and not isinstance(value, type):
        # A callback keeps what the last training left; that is no parameter.
        value = type(value), _identity(value.get_params(deep=False))
    try:
        return joblib.hash(value)
    except Exception:  # what no pickle can hold counts by its type
        return f"{type(value).__module__}.{type(value).__qualname__}"


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
            with suppress(BadImage):  # it may be gone by now
                yield image_key(cell, data.rows.image_root, data.transform)


class EpochCheckpoint(Callback):
    """Write the state of a training after every epoch; start from a state found.

    Where there is no room for a state, that is said once and the training goes on.

    Parameters
    ----------
    path : Path
        The file, which is replaced in one step, so that a kill leaves a whole one.
    max_epochs : int
        Epochs of the whole training.
    most : int
        Bytes that the file may have.

    Attributes
    ----------
    n_epochs : int
        Epochs that the state found has behind it.

    Raises
    ------
    ValueError
        If the file is there and damaged, or none of such a training: the message names
        it and the remedy. Nothing in it is executed.
    """

    def __init__(self, path: Path, max_epochs: int, most: int):
        self.path = path
        self.found, self.n_epochs = None, 0
        self._told = False
        # Only the first process has to see the folder.
        self.found = current().from_first(lambda: self._load(max_epochs, most))
        if self.found is not None:
            self.n_epochs = len(self.found["history"])

    def _load(self, max_epochs: int, most: int) -> dict | None:
        if not (self.path.exists() or self.path.is_symlink()):
            return None
        with self._damage_named():
            found = load_archive(self.path, most)
            found["history"] = json.loads(found["history"])
            _check(found, max_epochs)
        return found

    def on_train_begin(self, net: Net, X=None, y=None, **kwargs) -> None:
        """Go back to the state found; called when all other callbacks are ready."""
        state, self.found = self.found, None
        if state is not None:
            with self._damage_named():
                _go_back(net, state)

    def on_epoch_end(self, net: Net, **kwargs) -> None:
        """Write the state that the next epoch starts from."""
        if not current().is_first:
            return
        state = {
            "tensors": dict(own_tensors(net.module_)),
            "optimizer": net.optimizer_.state_dict(),
            "history": json.dumps(net.history.to_list(), default=float),
            "callbacks": [_get_state(callback) for callback in _stateful(net)],
            "generators": generator_states(torch.device(net.device)),
        }
        try:
            replace_bytes(self.path, dump_archive(state))
        except (OSError, TypeError) as error:
            self._warn(error)

    def _warn(self, error: Exception) -> None:
        if not self._told:
            self._told = True
            warnings.warn(
                f"The training goes on without a checkpoint of every epoch, as "
                f"{str(self.path)!r} cannot be written: {error}",
                stacklevel=2,
            )

    @contextmanager
    def _damage_named(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever a damaged file leads to
            raise ValueError(
                f"The checkpoint {str(self.path)!r} is damaged ({error!r:.300}); "
                "remove it to train from the beginning."
            ) from error


def _check(state: dict, max_epochs: int) -> None:
    """Raise ValueError unless a state has its parts, and no epoch too many."""
    parts = _PARTS | {"history": list}
    wrong = [k for k, kind in parts.items() if not isinstance(state.get(k), kind)]
    if wrong or len(state) > len(parts):
        raise ValueError(f"it must hold {list(parts)}, but not as {wrong}")
    history = state["history"]
    if not 1 <= len(history) <= max_epochs:
        raise ValueError(f"it has {len(history)} epochs of {max_epochs}")
    for number, epoch in enumerate(history, start=1):
        batches = epoch["batches"]
        if epoch["epoch"] != number or not (batches and isinstance(batches[-1], dict)):
            raise ValueError(f"its epoch {number} is no record of one")
        float(epoch["train_loss"])
    if not all(torch.isfinite(tensor).all() for tensor in state["tensors"].values()):
        raise ValueError("its tensors are not finite")


def _go_back(net: Net, state: dict) -> None:
    """Set a net that is about to be trained to where another one was."""
    tensors = {name: value.numpy() for name, value in state["tensors"].items()}
    load_tensors(net.module_, tensors)
    net.optimizer_.load_state_dict(state["optimizer"])
    _check_moments(net.optimizer_)
    net.history.extend(state["history"])
    for callback, saved in zip(_stateful(net), state["callbacks"], strict=True):
        _set_state(callback, saved)
    set_generator_states(torch.device(net.device), state["generators"])


def _check_moments(optimizer: torch.optim.Optimizer) -> None:
    """Raise ValueError for moments that AdamW would only stumble over later."""
    if type(optimizer) is not torch.optim.AdamW:
        return
    for parameter, moments in optimizer.state.items():
        shapes = {name: tuple(value.shape) for name, value in moments.items()}
        like = dict.fromkeys(("exp_avg", "exp_avg_sq"), tuple(parameter.shape))
        shapes.pop("max_exp_avg_sq", None)
        if shapes != {"step": (), **like}:
            raise ValueError(f"its moments have the shapes {shapes}")


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
    # Anything more would become an attribute, too.
    if set(state) != set(_get_state(callback)):
        raise ValueError(f"a {type(callback).__name__} has no {sorted(state)}")
    if isinstance(callback, LRScheduler):
        callback.lr_scheduler_.load_state_dict(state)
    else:
        vars(callback).update(state)
