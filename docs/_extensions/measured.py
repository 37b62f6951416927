"""What was measured, from ``results_runs.json``, as tables that pages include."""

import json
from pathlib import Path

import pandas as pd
from computed import FOLDER, list_table, public_classifiers

RUNS = Path(__file__).parents[1] / "results_runs.json"
# The runs that the tables of costs and scores are made of. Another measurement changes
# these lines and no page.
TABLE, ENCODERS, SCORE = "fashion products", "unseen", "accuracy"
# How the runs call what is a class of the package, where it is not the class's acronym.
RUNS_OF = {
    "CMPTClassifier": ["CMPT"],
    "DCPClassifier": ["DCP"],
    "DeLoClassifier": [],
    "DualPromptClassifier": [],
    "FineTuneClassifier": ["LoRA, CLIP", "LoRA, ViLT", "Full, CLIP"],
    "GaussianPrototypeClassifier": [],
    "L2PClassifier": [],
    "LinearProbeClassifier": ["Probe, CLIP", "Probe, CLIP + BERT", "Probe, ViLT"],
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


def read_runs() -> list[dict]:
    """Return the runs chosen above, one for each method and seed."""
    runs = json.loads(RUNS.read_text())
    chosen = {"table": TABLE, "encoders": ENCODERS}
    return [run for run in runs if chosen.items() <= run.items()]


def measured() -> pd.DataFrame:
    """Return a row per method: means of scores, medians of costs over the seeds."""
    rows = [
        {
            "method": run["method"],
            "score": run["scores"]["all"],
            "trained": run["trained_parameters"] or 0,
            # Runs on a graphics card have no seconds of this machine's processor.
            "fit": run["fit_seconds"],
            "predict": run["scores"].get("ms_per_row"),
        }
        for run in read_runs()
    ]
    by_method = pd.DataFrame(rows).groupby("method")
    costs = by_method[["trained", "fit", "predict"]].median()
    table = costs.assign(score=by_method["score"].mean())
    return table.sort_values("score", ascending=False)


def _row(name: str, row: pd.Series) -> list[str]:
    """A line of the table of costs."""
    numbers = [f"{row['score']:.3f}", f"{row['trained']:,.0f}"]
    numbers += [f"{row['fit']:.0f}", f"{row['predict']:.1f}"]
    return [name, *(number.replace("nan", "-") for number in numbers)]


def costs(table: pd.DataFrame) -> str:
    """Score, trained numbers and processor time of each method."""
    head = ["Method", f"{SCORE.capitalize()}", "Numbers trained"]
    head += ["Seconds to fit", "Milliseconds a row"]
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
