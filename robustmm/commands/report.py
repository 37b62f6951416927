"""``robustmm report``: scores of a model by what rows miss, and pictures of them."""

from __future__ import annotations

import argparse
import itertools
import sys
import warnings
from pathlib import Path

import pandas as pd
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import ConfusionMatrixDisplay
from tqdm.auto import tqdm

import robustmm

from .labels import read_labels
from .models import (
    columns_of,
    for_model,
    image_root,
    is_plain,
    open_model,
    several_labels,
    silent_about_empty_rows,
)
from .tables import read_table

SCORES = ["accuracy", "f1_macro"]
# The share of rows with exactly the right set of labels says little.
SCORES_OF_SEVERAL = ["f1_macro", "f1_micro"]
RATES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
MOST_CLASSES = 30  # of a confusion matrix that can be read


def report(arguments: argparse.Namespace) -> None:
    """Score a model on labelled rows; print tables, and write pictures if asked to."""
    model = open_model(arguments)
    with silent_about_empty_rows():
        # A class that is never predicted has a score of zero, as it should.
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        X, y = _rows(model, arguments)
        several = isinstance(y, pd.DataFrame)
        scoring = arguments.scoring or (SCORES_OF_SEVERAL if several else SCORES)
        tables = _scores(model, X, y, scoring)
        for title, table in tables.items():
            sys.stdout.write(f"{title}\n{table.round(4).to_string()}\n\n")
        if arguments.out is not None:
            folder = Path(arguments.out)
            folder.mkdir(parents=True, exist_ok=True)
            _write(folder, tables, model, X, y, scoring[0], arguments)
            sys.stdout.write(f"Numbers and pictures are in {folder}\n")


def _rows(model, arguments) -> tuple[pd.DataFrame, pd.Series | pd.DataFrame]:
    columns = columns_of(model)
    texts = [*(columns if is_plain(model) else []), arguments.label]
    classes = list(model.classes_)
    # Read as texts, labels would not be the numbers that the model knows.
    if not arguments.labels_separator and not all(isinstance(c, str) for c in classes):
        texts.remove(arguments.label)
    table = read_table(arguments.table, [*columns, arguments.label], texts)
    X = for_model(model, table, image_root(arguments))
    separator = arguments.labels_separator
    if separator is None and several_labels(model, X):
        separator = "|"
    return X, read_labels(table[arguments.label], separator, classes)


def _scores(model, X, y, scoring) -> dict[str, pd.DataFrame]:
    names = _column_names(model)
    options = {"scoring": scoring, **names}
    found = robustmm.score_by_pattern(model, X, y, **options)
    tables = {"Rows by what they miss": found}
    if found.loc["complete", "n_rows"]:
        tables["The complete rows, with a cell taken away"] = robustmm.score_by_pattern(
            model, X, y, rows="blanked", **options
        )
    return tables


def _column_names(model) -> dict[str, str]:
    if not is_plain(model):
        return {}
    return {"image_column": model.image_column, "text_column": model.text_column}


def _write(folder: Path, tables, model, X, y, score: str, arguments) -> None:
    for name, table in zip(("patterns", "blanked"), tables.values(), strict=False):
        table.to_csv(folder / f"{name}.csv")
    curve = _curve(model, X, y, score, arguments)
    curve.to_csv(folder / "missing_rates.csv", index=False)
    display = robustmm.MissingRateCurveDisplay
    _draw(folder / "patterns.png", _draw_patterns, next(iter(tables.values())), score)
    _draw(
        folder / "missing_rates.png",
        lambda ax: display.from_frame(curve, metric=score, label=score, ax=ax),
    )
    if isinstance(y, pd.Series) and len(model.classes_) <= MOST_CLASSES:
        _draw(folder / "confusion.png", _draw_confusion, model.predict(X), y)
    if hasattr(model, "leaderboard_"):
        model.leaderboard_.to_csv(folder / "leaderboard.csv")
    if hasattr(model, "expert_usage"):
        usage = robustmm.ExpertUsageDisplay.from_estimator(model, X)
        usage.figure_.savefig(folder / "experts.png", dpi=150)


def _curve(model, X, y, score: str, arguments) -> pd.DataFrame:
    """Score the model while more and more cells are taken away; it is not refitted."""
    everything = list(range(len(X)))
    steps = list(itertools.product(("text", "image"), RATES))
    curves = [
        robustmm.missing_rate_curve(
            FrozenEstimator(model),
            X,
            y,
            rates=[rate],
            scenario=scenario,
            cv=[(everything, everything)],
            scoring=[score],
            # From the same seed each time, so that a higher rate adds to a lower one.
            random_state=arguments.seed,
            **_column_names(model),
        )
        for scenario, rate in tqdm(steps, desc="curve", disable=arguments.quiet)
    ]
    return pd.concat(curves, ignore_index=True)


def _draw(file: Path, draw, *things, size=(6.4, 4.0)) -> None:
    # A figure of its own: pyplot would open windows, and keep all figures in memory.
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    draw(*things, figure.subplots())
    figure.savefig(file, dpi=150)


def _draw_patterns(scores: pd.DataFrame, score: str, ax) -> None:
    scores = scores[scores["n_rows"] > 0]
    names = [
        f"{name.replace('_', ' ')}\nn = {n}" for name, n in scores["n_rows"].items()
    ]
    bars = ax.bar(names, scores[score], color="#0072B2")
    ax.bar_label(bars, fmt="%.2f", padding=2)
    ax.set(ylabel=score, ylim=(min(0.0, scores[score].min()), 1.08))
    ax.spines[["top", "right"]].set_visible(False)


def _draw_confusion(predicted, y, ax) -> None:
    ConfusionMatrixDisplay.from_predictions(
        y,
        predicted,
        normalize="true",
        values_format=".2f",
        cmap="Blues",
        ax=ax,
        xticks_rotation=45,
    )
