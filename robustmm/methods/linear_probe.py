"""A linear probe: scikit-learn's logistic regression on frozen features.

Nothing of the encoders is trained, and each row is encoded once: what a user would
write in ten lines, and what every method here has to beat to be worth its time. Unlike
:class:`FineTuneClassifier` with ``tune="head"``, there is no gradient descent and no
hidden layer.
"""

from __future__ import annotations

import time
from dataclasses import field
from numbers import Integral, Real
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Subset

from ..adapters import LinearHead
from ..backbones import POOLINGS, Backbone, FrozenFeatures
from ..backbones.features import KnownRows
from ..base import BaseMultimodalClassifier
from ..checks import check_choice, check_number
from ..clips import ClipEncoders
from ..data.frame import MODALITIES
from ..training.probe import row_losses, solve_probe

# Parameters of a training, which models of the first release hold all the same.
_FORMER = {
    "checkpoint_dir",
    "early_stopping",
    "lr",
    "lr_schedule",
    "max_epochs",
    "n_iter_no_change",
    "net_params",
    "validation_fraction",
    "warmup",
    "weight_decay",
}


class LinearProbeModule(nn.Module):
    """Frozen features of a row and one linear layer.

    Shapes: ``present`` (B, 2) bool, and what the encoders read; features (B, d), the
    last two of which are ``present``, or as many as modalities; logits (B, C).
    """

    # Features are stored by what is in a row: folds and values of C share them.
    reads_host = True
    recalls = True

    def __init__(self, backbone: Backbone, n_outputs: int, *, pooling: str, store):
        super().__init__()
        self.backbone = backbone
        self.encode = FrozenFeatures(backbone, pooling, store)
        self.head = LinearHead(self.encode.width, n_outputs)

    def forward(self, **batch: Tensor) -> Tensor:
        """Return logits."""
        return self.head(self.features(**batch))

    def features(
        self, present: Tensor, image_key: Tensor | None = None, **batch: Tensor
    ) -> Tensor:
        """Return what the frozen encoders make of each row, (B, d)."""
        return self.encode(present, batch, image_key)


class LinearProbeClassifier(ClipEncoders, BaseMultimodalClassifier):
    """Logistic regression on the features of frozen encoders, the simple baseline.

    Features are standardised over the training rows. With ViLT, a missing cell is a
    white image or an empty text; with an encoder for each modality, the features of a
    missing cell are zero. In both cases more features say what is there.

    Parameters
    ----------
    backbone : str or path-like
        Hub id, local folder or embedded name of any supported checkpoint: ViLT, CLIP,
        or a single image or text encoder, whose classifier ignores the other column.
        Not read with ``modalities`` of sound and video alone.
    text_backbone : str or path-like, optional
        Takes the place of the text encoder of ``backbone``.
    pooling : {"token", "mean", "both"}
        Features are the pooled token of each encoder (after CLIP's projection), or the
        means over words and over patches, or both.
    C : float
        Inverse strength of the penalty on squared weights. Worth a search, which costs
        little: candidates and folds share the features.
    max_iter : int
        Iterations of the solver at most.
    batch_size : int
        Rows that are encoded at a time.
    cache : {"memory", None} or path-like
        Whether decoded images and features are kept, in memory or in an existing
        folder.
    random_state : int, RandomState instance or None
        Not used by the solver, which has nothing random; here so that all classifiers
        take one.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels in the order of the outputs.
    net_ : Net
        The skorch net, whose head holds the weights; the others are listed at
        :class:`BaseMultimodalClassifier`.

    Examples
    --------
    >>> from robustmm import LinearProbeClassifier, drop_modalities
    >>> from robustmm.datasets import make_scenes
    >>> from sklearn.model_selection import GridSearchCV
    >>> X, y = make_scenes(60, n_classes=2, random_state=0)
    >>> X = drop_modalities(X, rate=0.7, scenario="both", random_state=0)
    >>> clf = LinearProbeClassifier("robustmm/tiny-clip")
    >>> search = GridSearchCV(clf, {"C": [0.01, 1.0]}, cv=2).fit(X, y)
    >>> search.predict_proba(X).shape
    (60, 2)
    """

    backbone: str | Path = field(default="openai/clip-vit-base-patch16", kw_only=False)
    text_backbone: str | Path | None = None
    pooling: str = "token"
    C: float = 1.0
    max_iter: int = 1000

    batch_size: int = 64

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_choice("pooling", self.pooling, POOLINGS)
        check_number("C", self.C, Real, 0, open="low", finite=False)
        check_number("max_iter", self.max_iter, Integral, 1)

    def _build_module(self, backbone: Backbone, n_outputs: int) -> LinearProbeModule:
        store = self._state_cache()
        return LinearProbeModule(backbone, n_outputs, pooling=self.pooling, store=store)

    def _recall(self, backbone: Backbone) -> KnownRows | None:
        if self._modalities != MODALITIES:
            return None  # it tells of images and texts
        features = FrozenFeatures(backbone, self.pooling, self._state_cache())
        device = next(backbone.parameters()).device
        return features.known(device.type, self._number(device))

    def _train(
        self,
        module: LinearProbeModule,
        train: Subset,
        held_out: Subset,
        draws,
    ):
        start = time.perf_counter()
        net = self._make_net(module, draws.device)
        features = self._features(net, train)
        targets, weights = (
            np.asarray(values)[train.indices]
            for values in (train.dataset.targets, train.dataset.weights)
        )
        # An image that is damaged by now may have been all that a row had.
        weights = weights * features[:, -len(self._modalities) :].any(axis=1)
        # Folded into the head, so that prediction needs no scaler, and a saved model
        # holds no estimator of scikit-learn's.
        coef, intercept = solve_probe(
            features,
            targets,
            weights,
            len(self.classes_),
            C=self.C,
            max_iter=self.max_iter,
        )
        with torch.no_grad():
            # In float32 already: not every device has 64 bits.
            module.head.weight.copy_(torch.from_numpy(coef).float())
            module.head.bias.copy_(torch.from_numpy(intercept).float())
        losses = row_losses(features @ coef.T + intercept, targets)
        loss = float(np.average(losses, weights=weights))
        _record(net, train_loss=loss, dur=time.perf_counter() - start)
        return net

    def _keep(self, net) -> None:
        super()._keep(net)
        # There was none: it is the default of the net.
        self.history_ = self.history_.drop(columns="lr")

    def _features(self, net, train: Subset) -> np.ndarray:
        """Encode the training rows, (n, d)."""
        with self._progress(len(train), "fit") as bar:
            read = LinearProbeModule.features
            features = torch.cat(net.read(train, read, bar.update)).numpy()
        # Under assume_finite, scikit-learn would fit whatever comes.
        self._refuse_not_finite(train.dataset.rows, train.indices, features)
        return features

    def __setstate__(self, state: dict) -> None:
        former = _FORMER - set(self._get_param_names())  # a subclass may have some
        super().__setstate__({k: v for k, v in state.items() if k not in former})


def _record(net, **values: float) -> None:
    """Write one epoch into the history of a net."""
    net.history.new_epoch()
    net.history.new_batch()
    for name, value in {"epoch": 1, **values}.items():
        net.history.record(name, value)
