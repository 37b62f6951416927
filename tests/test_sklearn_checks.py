"""scikit-learn's own checks of everything behind ``_check_X``.

They feed numbers, so an adapter writes each row of numbers as a text cell, exactly;
from there on all code is that of every classifier of this package. What is before the
adapter, tables with cells, has the checks of ``robustmm.testing``.
"""

from functools import partial
from typing import ClassVar

import numpy as np
import pytest
import torch
from sklearn.utils import estimator_checks
from sklearn.utils.validation import validate_data

from robustmm import MultimodalClassifier
from robustmm.backbones.backbone import Backbone
from robustmm.data import Rows

SPECIAL = 256  # a token that every text starts with; the others are bytes


class HexTokenizer:
    """One token per byte of a text in hexadecimal."""

    pad_token_id = 0

    @property
    def backend_tokenizer(self):
        return self

    def no_padding(self):
        pass

    def no_truncation(self):
        pass

    def enable_truncation(self, max_length, direction):
        pass

    def encode(self, text):
        self.ids = [SPECIAL, *bytes.fromhex(text)]
        return self


class NumericBackbone(Backbone):
    """No stream, and a tokenizer that has no vocabulary to be told by."""

    inputs: ClassVar[dict] = {}


class NumericModule(torch.nn.Module):
    """A linear layer on the numbers that the tokens spell."""

    def __init__(self, backbone, n_features, n_outputs):
        super().__init__()
        self.backbone = backbone
        self.head = torch.nn.Linear(n_features, n_outputs, dtype=torch.float64)
        # From zero, the loss is convex and no path to its minimum is random.
        torch.nn.init.zeros_(self.head.weight)
        torch.nn.init.zeros_(self.head.bias)

    def features(self, input_ids, **batch):
        written = input_ids[:, 1:].to(torch.uint8).numpy().tobytes()
        numbers = np.frombuffer(written).reshape(len(input_ids), -1)
        values = np.zeros((len(numbers), self.head.in_features))
        values[:, : numbers.shape[1]] = numbers
        return torch.from_numpy(values)

    def forward(self, **batch):
        numbers = self.features(**batch)
        if self.training:
            return self.head(numbers)
        # Float32 losses make weighted and repeated rows differ in the seventh digit.
        weight, bias = self.head.weight.round(decimals=3), self.head.bias
        return torch.nn.functional.linear(numbers, weight, bias.round(decimals=3))


class NumericClassifier(MultimodalClassifier):
    """A classifier of numbers with nothing of its own but the way they come in."""

    def __init__(
        self,
        *,
        max_epochs=15,
        batch_size=1000,
        lr=0.3,
        class_weight=None,
        early_stopping=False,
        n_iter_no_change=10,
        device="cpu",
        random_state=None,
        net_params=None,
    ):
        super().__init__(
            max_epochs=max_epochs,
            batch_size=batch_size,
            lr=lr,
            class_weight=class_weight,
            early_stopping=early_stopping,
            n_iter_no_change=n_iter_no_change,
            device=device,
            random_state=random_state,
            net_params=net_params,
        )

    def _check_X(self, X, reset):
        X = validate_data(self, X, reset=reset, dtype=np.float64)
        texts = [row.tobytes().hex() for row in X]
        return Rows([None] * len(X), texts, list(range(len(X))))

    def _load_backbone(self, device):
        return NumericBackbone(
            {},
            sources={},
            identities={},
            tokenizer=HexTokenizer(),
            max_text_length=10**6,
        )

    def _build_module(self, backbone, n_outputs):
        return NumericModule(backbone, self.n_features_in_, n_outputs)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string = False
        tags.input_tags.allow_nan = False
        return tags


# What scikit-learn keeps for its own transformers and for tables.
FURTHER = [
    estimator_checks.check_dataframe_column_names_consistency,
    estimator_checks.check_get_feature_names_out_error,
    estimator_checks.check_global_output_transform_pandas,
    estimator_checks.check_set_output_transform,
    estimator_checks.check_set_output_transform_pandas,
    estimator_checks.check_transformer_get_feature_names_out,
    estimator_checks.check_transformer_get_feature_names_out_pandas,
]
TOY = NumericClassifier()
GENERATED = [check for _, check in estimator_checks.estimator_checks_generator(TOY)]
CHECKS = [*GENERATED, *(partial(check, "NumericClassifier") for check in FURTHER)]


def named(check):
    """The name and the options of one check."""
    options = {}
    while hasattr(check, "func"):
        options |= check.keywords
        check = check.func
    listed = ",".join(f"{name}={value}" for name, value in options.items())
    return f"{check.__name__}({listed})" if listed else check.__name__


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("check", CHECKS, ids=named)
def test_scikit_learn(check, monkeypatch):
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")  # or the check of arrays skips itself
    check(NumericClassifier())


def test_the_battery_is_whole():
    names = [named(check) for check in GENERATED]
    assert len(names) >= 70
    assert {"check_classifiers_train", "check_transformer_general"} <= set(names)


def test_the_battery_finds_what_is_broken():
    class Broken(NumericClassifier):
        def predict(self, X):
            return super().predict(X).astype(str)

    with pytest.raises(AssertionError):
        estimator_checks.check_classifiers_classes("Broken", Broken())
