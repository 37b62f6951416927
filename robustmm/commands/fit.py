"""``robustmm fit``: from a table to a saved model."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import robustmm

from ..storage.folder import check_replaceable
from .labels import read_labels
from .models import check_new_model, columns_of, in_command, in_words, patterns_of
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
    X = table[columns]
    y = read_labels(table[arguments.label], arguments.labels_separator)
    with in_command(classifier, arguments):
        classifier.fit(X, y)
    robustmm.save(classifier, arguments.out, arguments.include_backbone)
    counts = in_words(patterns_of(classifier, X))
    sys.stdout.write(
        f"{type(classifier).__name__} fitted on {len(X)} rows ({counts}) with "
        f"{len(classifier.classes_)} classes; saved in {arguments.out}\n"
    )
