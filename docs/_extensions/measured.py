"""What was measured, from ``results_runs.json``, as tables that pages include."""

import json
from collections import defaultdict
from pathlib import Path

import pandas as pd
from computed import FOLDER, list_table, public_classifiers

RUNS = Path(__file__).parents[1] / "results_runs.json"
# The runs that the tables of costs and scores are made of: a group of the file, and a
# table with its score. Another measurement changes these lines and no page.
GROUP, TABLE, SCORE = "800x3_rate0.7", "fashion-products", "accuracy"
# How the runs call what is a class of the package, where it is not the class's acronym.
RUNS_OF = {
    "CMPTClassifier": ["CMPT"],
    "DCPClassifier": ["DCP"],
    "DeLoClassifier": ["DeLo-one-task"],
    "DualPromptClassifier": [],
    "FineTuneClassifier": ["Head-CLIP", "LoRA-CLIP", "LoRA-ViLT", "Full-CLIP"],
    "GaussianPrototypeClassifier": [],
    "L2PClassifier": [],
    "LinearProbeClassifier": ["Linear-probe-ViLT", "Linear-probe-CLIP"],
    "MAILClassifier": ["MAIL"],
    "MAPClassifier": ["MAP"],
    "MSPClassifier": ["MSP"],
    "MemPromptClassifier": ["MemPrompt"],
    "MoRAClassifier": ["MoRA"],
    "RAGPTClassifier": ["RAGPT"],
    "RanPACClassifier": [],
    "RebQClassifier": [],
    "SequentialClassifier": [],
}


def measured() -> pd.DataFrame:
    """Return a row per method: means over the seeds of the runs chosen above."""
    runs = json.loads(RUNS.read_text())[GROUP]
    found = defaultdict(list)
    for name, run in runs.items():
        method, *where = name.split("_")
        if where[:3] == ["both", TABLE, "both"]:
            test = run["tests"]["both"]
            found[method].append(
                {
                    "score": test["all"][SCORE],
                    "trained": run["trained_parameters"] or 0,
                    "fit": run["fit_seconds"],
                    "predict": test["predict_seconds"],
                }
            )
    means = {method: pd.DataFrame(rows).mean() for method, rows in found.items()}
    return pd.DataFrame(means).T.sort_values("score", ascending=False)


def _row(name: str, row: pd.Series) -> list[str]:
    """A line of the table of costs."""
    numbers = [f"{row['score']:.3f}", f"{row['trained']:,.0f}"]
    numbers += [f"{row['fit']:.1f}", f"{row['predict']:.1f}"]
    return [name.replace("-", " "), *numbers]


def costs(table: pd.DataFrame) -> str:
    """Score, trained numbers and processor seconds of each method."""
    head = ["Method", f"{SCORE.capitalize()}", "Numbers trained"]
    head += ["Seconds to fit", "Seconds to predict"]
    return list_table([head, *(_row(name, row) for name, row in table.iterrows())])


def write_costs(app=None) -> None:
    """Write the table of all methods, and one for the page of each class."""
    table = measured()
    FOLDER.mkdir(parents=True, exist_ok=True)
    texts = {"costs": costs(table)}
    for classifier in public_classifiers():
        own = table[table.index.isin(RUNS_OF.get(classifier.__name__, ()))]
        text = costs(own) if len(own) else "Not measured on these tables yet.\n"
        texts[f"costs_{classifier.__name__}"] = text
    for name, text in texts.items():
        file = FOLDER / f"{name}.rst"
        if not file.exists() or file.read_text() != text:
            file.write_text(text)


def setup(app) -> dict:
    """Write the tables before any page is read."""
    app.connect("builder-inited", write_costs)
    return {"parallel_read_safe": True}
