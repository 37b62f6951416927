"""What stands around classifiers in a pipeline or search: scikit-learn's, by skops."""

from __future__ import annotations

import copy
import importlib
import io
import re
import zipfile
from collections.abc import Iterable, Iterator
from types import FunctionType, ModuleType

import numpy as np
from sklearn import metrics, model_selection
from sklearn.base import BaseEstimator

from ..table import TableClassifier

# As JSON, which takes twenty times its text in memory; skops writes some hundred bytes
# for every name of a category or word of a vocabulary.
_MAX_SCHEMA_BYTES = 2**25
# Of sparse matrices, which are compressed: all of a tree's together.
_MAX_INFLATED_BYTES = 2**26
# Of a tree's file, which is read as a whole.
MAX_TREE = 2**30
_FILE = re.compile(r"[\w-]+\.(json|npy|npz|bin)", re.ASCII)
_STRIPPED = ("_metadata_request", "_skl_callbacks")


class Member:
    """Stands in a saved tree where one of robustmm's classifiers stood."""

    def __init__(self, key: str):
        self.key = key


def take_apart(estimator: BaseEstimator) -> tuple[BaseEstimator, dict]:
    """Return a copy with members for classifiers, and the classifiers by their keys.

    What belongs to a machine or a session stays behind: ``memory`` of pipelines,
    callbacks and metadata requests.
    """
    inside = [v for v in walk(estimator) if isinstance(v, TableClassifier)]
    found = {str(i): classifier for i, classifier in enumerate(inside)}
    tree = exchange(estimator, {id(c): Member(key) for key, c in found.items()})
    _leave_behind(tree)
    return tree, found


def put_together(tree: BaseEstimator, classifiers: dict) -> BaseEstimator:
    """Return a copy with the classifiers, by the ids of members, in their places."""
    return exchange(tree, classifiers)


def exchange(tree, replacements: dict[int, object]):
    """Return a deep copy with other objects for those of some ids."""
    memo = dict(replacements)
    for array in walk(tree):
        # NumPy copies what masked arrays hold, such as the candidates of a search,
        # without a look at the memo.
        if isinstance(array, np.ma.MaskedArray) and array.dtype == object:
            memo[id(array)] = exchanged = array.copy()
            for place, value in np.ndenumerate(array.data):
                exchanged.data[place] = copy.deepcopy(value, memo)
    return copy.deepcopy(tree, memo)


def members_of(tree) -> list[Member]:
    """Return all members in a tree, each once."""
    return [value for value in walk(tree) if isinstance(value, Member)]


def walk(value) -> Iterator:
    """Yield a value and all that can be reached from it, but for what classifiers hold.

    Each object once: fitted estimators share parts.
    """
    seen, waiting = set(), [value]
    while waiting:
        value = waiting.pop()
        if id(value) not in seen:
            seen.add(id(value))
            yield value
            waiting.extend(_inside(value))


def _inside(value) -> list:
    if isinstance(value, TableClassifier | type | ModuleType | FunctionType):
        return []
    found = list(vars(value).values()) if hasattr(value, "__dict__") else []
    if isinstance(value, dict):
        found += value.values()
    elif isinstance(value, list | tuple | set | frozenset):
        found += value
    elif isinstance(value, np.ndarray) and value.dtype == object:
        found += np.asarray(value).ravel().tolist()
    return found


def _leave_behind(tree) -> None:
    for value in walk(tree):
        if isinstance(value, Member | type) or not hasattr(value, "__dict__"):
            continue
        for name in _STRIPPED:
            vars(value).pop(name, None)
        # A folder of pickles: who fits an opened pipeline would execute what is there.
        if isinstance(value, BaseEstimator) and vars(value).get("memory") is not None:
            value.memory = None


# Writing ------------------------------------------------------------------------------


def dump_tree(tree: BaseEstimator) -> bytes:
    """Return a tree without classifiers as skops writes it.

    Raises
    ------
    TypeError
        For what is found by no name, such as a lambda, and what skops cannot write.
    ValueError
        If :func:`load_tree` would find it too large.
    """
    for value in walk(tree):
        _refuse_nameless(value)
    skops = _skops()
    data = skops.dumps(tree)
    for name in skops.get_untrusted_types(data=data):
        _check_importable(name)
    check_archive(data)
    return data


def _refuse_nameless(owner) -> None:
    for name, value in getattr(owner, "__dict__", {}).items():
        if isinstance(value, FunctionType) and "<" in value.__qualname__:
            raise TypeError(
                f"{name} of {type(owner).__name__} must be a function that can be "
                f"imported by its name, got {value.__qualname__}: a saved model holds "
                "no programs. Define it at the top of a module, and name it in "
                "load(..., trusted=[...])."
            )


def _check_importable(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    try:
        getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise TypeError(
            f"{name} cannot be imported by its name, so that no saved model can hold "
            "it: a lambda, a function or class inside a function, or a bound method."
        ) from error


# Reading ------------------------------------------------------------------------------


def load_tree(data: bytes, trusted: Iterable[str | type] = ()) -> BaseEstimator:
    """Return the tree, with members; nothing in it is executed.

    Parameters
    ----------
    data : bytes
        What :func:`dump_tree` returned, or anything.
    trusted : iterable of str or type
        Beside what is known to be harmless: these are imported and run.

    Raises
    ------
    ValueError
        If it holds a type that is not trusted, is damaged, or is no estimator.
    """
    trusted = {t if isinstance(t, str) else _name_of(t) for t in trusted}
    skops = _skops()
    try:
        check_archive(data)
        unknown = set(untrusted_types(data)) - trusted
        if not unknown:
            tree = skops.loads(data, trusted=sorted(_known() | trusted))
            _refuse_overrides(tree)
            return _check_estimator(tree)
    except ValueError:
        raise
    except Exception as error:  # whatever a forged file leads to
        raise ValueError(f"The tree of the model is damaged: {error!r:.200}") from error
    raise ValueError(
        f"The model holds types that are not trusted: {sorted(unknown)}. If you know "
        "who wrote it, and what they do, pass their names as trusted=[...]: they are "
        "imported and run, and compiled ones, such as trees, may crash on forged "
        "numbers."
    )


def untrusted_types(data: bytes) -> list[str]:
    """Return names of types in a tree that are not known to be harmless."""
    return sorted(set(_skops().get_untrusted_types(data=data)) - _known())


def check_archive(data: bytes) -> None:
    """Raise ValueError if reading a tree would take more memory than it is large."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        files = archive.infolist()
        names = [file.filename for file in files]
        odd = [name for name in names if not _FILE.fullmatch(name)]
        if odd or len(set(names)) < len(names) or "schema.json" not in names:
            raise ValueError(f"A tree must hold a schema and arrays, got {odd[:3]}.")
        size = sum(file.file_size for file in files)
        stored = all(file.compress_type == zipfile.ZIP_STORED for file in files)
        if not stored or size > len(data):
            raise ValueError(f"A tree must not be compressed, got {size} bytes in it.")
        length = archive.getinfo("schema.json").file_size
        if length > _MAX_SCHEMA_BYTES:
            raise ValueError(
                f"What stands around the classifiers must be described in at most "
                f"{_MAX_SCHEMA_BYTES} bytes, got {length}: vocabularies and categories "
                "may be what is large."
            )
        room = _MAX_INFLATED_BYTES
        for name in names:
            room = _check_content(archive.read(name), room)


def _check_content(content: bytes, room: int) -> int:
    """Check an array or a sparse matrix; return how much more may be inflated."""
    # By what they are, not by name: that is how NumPy opens them.
    if content.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(content)) as inner:
            room -= sum(file.file_size for file in inner.infolist())
            if room < 0:
                raise ValueError(
                    f"Sparse matrices must have at most {_MAX_INFLATED_BYTES} bytes."
                )
            for name in inner.namelist():
                _check_array(inner.read(name))
    _check_array(content)
    return room


def _check_array(content: bytes) -> None:
    """Raise unless an array has as many bytes as its header says."""
    if not content.startswith(np.lib.format.MAGIC_PREFIX):
        return
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read is None:
        raise ValueError(f"Arrays must be of version 1.0 or 2.0, got {version}.")
    shape, _, dtype = read(stream)
    size = dtype.itemsize
    for length in shape:
        size *= length
    rest = len(content) - stream.tell()
    if dtype.hasobject or min(shape, default=0) < 0 or size != rest:
        raise ValueError(f"An array of {dtype} and {shape} must be as large as that.")


def _refuse_overrides(tree) -> None:
    """Raise if an object has something of its own in the place of a method."""
    # skops makes masked arrays of data and mask alone, and finds functions by name.
    exempt = type | np.ndarray | FunctionType
    for value in (v for v in walk(tree) if not isinstance(v, exempt)):
        cls = type(value)
        for name in getattr(value, "__dict__", {}):
            if name.startswith("__") or callable(getattr(cls, name, None)):
                raise ValueError(f"No {cls.__name__} that was saved has {name!r:.80}.")


def _check_estimator(tree) -> BaseEstimator:
    if not isinstance(tree, BaseEstimator):
        raise ValueError(
            f"A saved model must be an estimator, got {type(tree).__name__}."
        )
    return tree


def _known() -> set[str]:
    """Return names beside those of skops: of scikit-learn's parts that only compute."""
    ours = ("ensemble.out_of_fold.OutOfFoldFeatures",)
    ours += ("ensemble.selection.EnsembleSelection",)
    ours += ("ensemble.thresholds.TunedThresholdsClassifier", "persistence.tree.Member")
    calibrated = ("_CalibratedClassifier", "_SigmoidCalibration", "_TemperatureScaling")
    scorers = ("_Scorer", "_PassthroughScorer", "_MultimetricScorer", "_CurveScorer")
    columns = ("make_column_selector", "_RemainderColsList")
    splitters = vars(model_selection).values()
    return {
        "numpy.dtype",
        "sklearn.utils._bunch.Bunch",
        *(f"robustmm.{name}" for name in ours),
        *(f"sklearn.calibration.{name}" for name in calibrated),
        *(f"sklearn.metrics._scorer.{name}" for name in scorers),
        *(f"sklearn.compose._column_transformer.{name}" for name in columns),
        *(_name_of(v) for v in splitters if isinstance(v, type) and _splits(v)),
        *(_name_of(_function_of(name)) for name in metrics.get_scorer_names()),
    }


def _splits(cls: type) -> bool:
    return cls.__module__ == "sklearn.model_selection._split"


def _function_of(scorer: str):
    return metrics.get_scorer(scorer)._score_func


def _name_of(thing) -> str:
    return f"{thing.__module__}.{thing.__name__}"


def _skops():
    try:
        import skops.io
    except ImportError as error:
        raise ImportError(
            "What stands around a classifier, such as a Pipeline, is saved and opened "
            'by skops: pip install "robustmm[pipelines]".'
        ) from error
    return skops.io
