"""``robustmm fit``: from a table to a saved model."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import robustmm

from ..storage.folder import check_replaceable
from .labels import read_labels
from .models import (
    check_new_model,
    columns_of,
    for_model,
    image_root,
    in_words,
    patterns_of,
)
from .settings import make_classifier
from .tables import read_table


def fit(arguments: argparse.Namespace) -> None:
    """Fit the classifier that was asked for, and save it."""
    classifier = make_classifier(arguments)
    # What would stop the saving is known before the training.
    check_new_model(arguments.out, arguments.force)
    check_replaceable(Path(arguments.out))
    columns = columns_of(classifier)
    texts = [*columns, *([arguments.label] if arguments.labels_separator else [])]
    table = read_table(arguments.table, [*columns, arguments.label], texts)
    X = for_model(classifier, table, image_root(arguments))
    y = read_labels(table[arguments.label], arguments.labels_separator)
    classifier.fit(X, y)
    # Bars are this command's, and not the model's.
    classifier.set_params(verbose=0)
    robustmm.save(classifier, arguments.out, arguments.include_backbone)
    counts = in_words(patterns_of(classifier, X))
    sys.stdout.write(
        f"{type(classifier).__name__} fitted on {len(X)} rows ({counts}) with "
        f"{len(classifier.classes_)} classes; saved in {arguments.out}\n"
    )
