"""Where other projects document the names that our pages use, without asking them.

Intersphinx reads an inventory per project, as a rule from its server. Here they are
written from the names in ``NAMES`` and from the patterns by which those projects name
their pages, so that a build needs no network. A name that is not listed fails the
build.
"""

import zlib
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "generated" / "inventories"
SITES = {
    "numpy": "https://numpy.org/doc/stable/",
    "pandas": "https://pandas.pydata.org/docs/",
    "sklearn": "https://scikit-learn.org/stable/",
    "torch": "https://docs.pytorch.org/docs/stable/",
}
PAGES = {
    "numpy": "reference/generated/{name}.html",
    "pandas": "reference/api/{name}.html",
    "sklearn": "modules/generated/{name}.html",
    "torch": "generated/{name}.html",
}
NAMES = {
    "class": """
        numpy.ndarray numpy.random.RandomState pandas.DataFrame pandas.Series
        sklearn.calibration.CalibratedClassifierCV sklearn.compose.ColumnTransformer
        sklearn.frozen.FrozenEstimator sklearn.linear_model.LogisticRegression
        sklearn.model_selection.GridSearchCV
        sklearn.model_selection.HalvingGridSearchCV
        sklearn.model_selection.HalvingRandomSearchCV
        sklearn.model_selection.RandomizedSearchCV
        sklearn.model_selection.StratifiedKFold
        sklearn.model_selection.TunedThresholdClassifierCV
        sklearn.ensemble.StackingClassifier sklearn.ensemble.VotingClassifier
        sklearn.pipeline.Pipeline sklearn.pipeline.FeatureUnion
        sklearn.preprocessing.FunctionTransformer torch.Tensor torch.nn.Module
    """,
    "function": """
        sklearn.inspection.permutation_importance
        sklearn.model_selection.cross_val_predict
        sklearn.model_selection.cross_validate pandas.read_csv
        sklearn.model_selection.train_test_split
    """,
}
# Pages that the patterns do not find: the one of a class that is many pages' subject.
EXCEPTIONS = {"torch.Tensor": "tensors.html#torch.Tensor"}


def _lines(project: str) -> list[str]:
    """The lines of an inventory, one for each name of a project."""
    lines = []
    for kind, names in NAMES.items():
        for name in names.split():
            if name.partition(".")[0] == project:
                page = PAGES[project].format(name=name) + f"#{name}"
                lines.append(f"{name} py:{kind} 1 {EXCEPTIONS.get(name, page)} -")
    return lines


def write_inventories() -> dict[str, tuple[str, str]]:
    """Write a file per project, and return Sphinx's ``intersphinx_mapping``."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    mapping = {}
    for project, site in SITES.items():
        head = f"# Sphinx inventory version 2\n# Project: {project}\n# Version: \n"
        head += "# The remainder of this file is compressed using zlib.\n"
        body = "\n".join(_lines(project)) + "\n"
        file = FOLDER / f"{project}.inv"
        file.write_bytes(head.encode() + zlib.compress(body.encode()))
        mapping[project] = (site, str(file))
    return mapping
