"""Tables that are computed from the classes when the site is built, and included."""

import inspect
import re
from collections.abc import Iterable
from pathlib import Path

import torch
import transformers as hf
from sklearn.base import ClassifierMixin

import robustmm
from robustmm.backbones import loading

FOLDER = Path(__file__).parents[1] / "generated" / "tables"
# The sizes of these are the defaults of their configurations in transformers.
USUAL = {
    "openai/clip-vit-base-patch32": lambda: hf.CLIPModel(hf.CLIPConfig()),
    "openai/clip-vit-base-patch16": lambda: hf.CLIPModel(
        hf.CLIPConfig(vision_config={"patch_size": 16})
    ),
    "dandelin/vilt-b32-mlm": lambda: hf.ViltModel(hf.ViltConfig()),
    "bert-base-uncased": lambda: hf.BertModel(hf.BertConfig()),
    "distilbert-base-uncased": lambda: hf.DistilBertModel(hf.DistilBertConfig()),
    "google/vit-base-patch16-224": lambda: hf.ViTModel(hf.ViTConfig()),
}
YES, NO = "yes", "no"
# What a class can do beside what all can: a heading, and the attribute that shows it.
ABILITIES = {
    "Learns in stages": "partial_fit",
    "Merges and exports": "to_huggingface",
    "Shows its inside": (
        "attention_maps",
        "expert_usage",
        "memory_usage",
        "factor_usage",
        "selected_prompts",
    ),
}


def public_classifiers() -> list[type]:
    """Return the classes of the public namespace that fit and predict, by name."""
    classes = [c for c in vars(robustmm).values() if inspect.isclass(c)]
    base = robustmm.BaseMultimodalClassifier
    found = [c for c in classes if issubclass(c, base) and not inspect.isabstract(c)]
    return sorted(found, key=lambda c: c.__name__)


def every_classifier() -> list[type]:
    """Return these, and those that choose among them; not what is put around one."""
    classes = [c for c in vars(robustmm).values() if inspect.isclass(c)]
    found = [c for c in classes if issubclass(c, ClassifierMixin)]
    found = [c for c in found if not inspect.isabstract(c) and _needs_nothing(c)]
    return sorted(found, key=lambda c: (c not in public_classifiers(), c.__name__))


def _needs_nothing(thing) -> bool:
    given = inspect.signature(thing).parameters.values()
    return all(p.default is not p.empty for p in given)


def summary_of(thing) -> str:
    """Return the first line of a docstring, without marks of references."""
    return re.sub(r"\s*\[\d+\]_", "", inspect.getdoc(thing).splitlines()[0])


def own_parameters(classifier: type) -> list[inspect.Parameter]:
    """Return the parameters that not every trained classifier has."""
    shared = inspect.signature(robustmm.MultimodalClassifier).parameters
    given = inspect.signature(classifier).parameters
    return [p for name, p in given.items() if name not in shared]


def _class(classifier: type) -> str:
    return f":class:`~robustmm.{classifier.__name__}`"


def list_table(rows: Iterable[Iterable[str]], widths: str = "", title: str = "") -> str:
    """Return a table in reStructuredText; the first row is its head."""
    lines = [f".. list-table:: {title}".rstrip(), "   :header-rows: 1"]
    lines += [f"   :widths: {widths}"] if widths else []
    lines.append("")
    for row in rows:
        for i, cell in enumerate(row):
            first, *rest = cell.splitlines() or [""]
            lines.append(f"   {'*' if i == 0 else ' '} - {first}".rstrip())
            lines += [f"       {line}".rstrip() for line in rest]
    return "\n".join(lines) + "\n"


# The tables ---------------------------------------------------------------------------


def methods() -> str:
    """Each class, what it is, and its default backbones."""
    rows = [["Class", "What it is", "Backbones by default"]]
    for classifier in public_classifiers():
        parameters = inspect.signature(classifier).parameters.values()
        backbones = [p.default for p in parameters if p.name.endswith("backbone")]
        named = ", ".join(f"``{name}``" for name in backbones if name is not None)
        rows.append([_class(classifier), summary_of(classifier), named])
    return list_table(rows, "25 45 30")


def _answers(classifier: type) -> list[str]:
    """Which of the questions of :func:`capabilities` a class answers with yes."""
    tags = classifier().__sklearn_tags__()
    taken = inspect.signature(classifier.fit).parameters
    facts = [
        tags.classifier_tags.multi_label,
        "sample_weight" in taken,
        "class_weight" in inspect.signature(classifier).parameters,
    ]
    for names in ABILITIES.values():
        names = (names,) if isinstance(names, str) else names
        facts.append(any(hasattr(classifier, name) for name in names))
    return [YES if fact else NO for fact in facts]


def _stands_on(classifier: type) -> str:
    streams = getattr(classifier, "STREAMS", None)
    names = {("joint",): "ViLT", ("image", "text"): "an image and a text encoder"}
    return "any" if streams is None else names[tuple(streams)]


def capabilities() -> str:
    """What each class can do, from its tags, its signature and its methods."""
    head = ["Class", "Encoders", "Several labels", "Row weights", "Class weights"]
    rows = [[_class(c), _stands_on(c), *_answers(c)] for c in every_classifier()]
    return list_table([[*head, *ABILITIES], *rows])


def _fits(classifier: type, offers: set[str]) -> str:
    """Whether a class can stand on an architecture, from the streams both name."""
    wanted = classifier.STREAMS
    if wanted is None:
        wanted = ("joint",) if "joint" in offers else ("image", "text")
    if set(wanted) <= offers:
        return YES
    own = set(wanted) & offers
    pairs = "text_backbone" in inspect.signature(classifier).parameters
    if not (own and pairs):
        return NO
    return f"{own.pop()} side"


def encoders() -> str:
    """Architectures by classes: which backbone goes with which method."""
    classes = public_classifiers()
    names = [c.__name__.removesuffix("Classifier") for c in classes]
    links = [f":class:`{n} <robustmm.{n}Classifier>`" for n in names]
    head = ["``model_type``", "Streams", *links]
    rows = [head]
    for name, streams in loading._ARCHITECTURES.items():
        answers = [_fits(c, set(streams)) for c in classes]
        rows.append([f"``{name}``", ", ".join(streams), *answers])
    return list_table(rows)


def encoder_sizes() -> str:
    """Parameters and megabytes of usual checkpoints, from their configurations."""
    rows = [["Checkpoint", "Parameters, million", "As float32, MB"]]
    for name in ("tiny-clip", "tiny-vilt", "tiny-bert", "tiny-ast"):
        name = f"robustmm/{name}"
        rows.append(_size(name, robustmm.load_backbone(name)))
    with torch.device("meta"):  # shapes without weights: nothing is loaded
        rows += [_size(name, make()) for name, make in USUAL.items()]
    return list_table(rows)


def _size(name: str, model) -> list[str]:
    count = sum(p.numel() for p in model.parameters())
    return [f"``{name}``", f"{count / 1e6:,.1f}", f"{4 * count / 1e6:,.0f}"]


def parameters(classifier: type) -> str:
    """Own parameters of a class: default, the paper's value if it is another."""
    paper = getattr(classifier, "PAPER", {})
    # Some papers have a recipe per data set.
    recipes = paper if any(isinstance(v, dict) for v in paper.values()) else {"": paper}
    taken = inspect.signature(classifier).parameters
    told = [p.name for p in own_parameters(classifier)]
    told += sorted({n for recipe in recipes.values() for n in recipe} - set(told))
    heads = [f"``PAPER[{name!r}]``" if name else "``PAPER``" for name in recipes]
    rows = [["Parameter", "Default", *(heads if paper else [])]]
    for name in told:
        given = [[r[name]] if name in r else [] for r in recipes.values()]
        shown = [", ".join(f"``{value!r}``" for value in values) for values in given]
        default = f"``{taken[name].default!r}``"
        rows.append([f"``{name}``", default, *(shown if paper else [])])
    return list_table(rows)


def write_tables(app=None) -> None:
    """Write all tables; unchanged files keep their time, so that builds stay short."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    makers = (methods, capabilities, encoders, encoder_sizes)
    tables = {make.__name__: make() for make in makers}
    for classifier in public_classifiers():
        tables[f"parameters_{classifier.__name__}"] = parameters(classifier)
    for name, text in tables.items():
        file = FOLDER / f"{name}.rst"
        if not file.exists() or file.read_text() != text:
            file.write_text(text)


def setup(app) -> dict:
    """Write the tables before any page is read."""
    app.connect("builder-inited", write_tables)
    return {"parallel_read_safe": True}
