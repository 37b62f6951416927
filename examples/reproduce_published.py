"""The figures that the papers print, as ``reproduce.py`` shows them beside its own."""

import io

import pandas as pd
from reproduce_data import DATA_SETS

# %%
# The figures of the papers
# -------------------------
# In percent, by data set and by the shares of rows that are blanked in training and in
# the test. Nine figures: trained without text and tested without text, without image,
# with either missing; trained without image, tested in the same order; trained with
# either missing. Three: trained and tested without text, without image, with either
# missing. Two: trained complete, tested without text, without image. "vilt" is a frozen
# ViLT under a trained pooler and head.
#
# Sources: table 1 of MemPrompt; tables 3, 8 and 11 of CMPT; table 1 of MoRA, whose
# column of DCP has the figures of DCP's own paper; and table 1 of MAIL, whose protocol
# is another one: one text per film, and the code that it builds on computes another F1
# than the one it names. RAGPT's on MM-IMDb, a micro F1, are left out for that. Further
# rates are in figures without numbers: 2 and 3 of MemPrompt, 4 to 6 of MAIL, 2, 3 and 7
# of CMPT, 7 and 8 of MoRA.

PUBLISHED = {
    ("mmimdb", 0.7, 0.7): """
vilt          MemPrompt 35.09 28.21 31.77 29.64 37.65 34.71 34.23 35.19 36.10
map-attention MemPrompt 35.82 28.76 33.33 25.30 44.46 36.38 35.77 42.08 39.51
map-input     MemPrompt 36.03 21.02 30.72 22.08 44.64 35.00 37.55 44.35 41.48
memprompt     MemPrompt 38.47 35.06 37.60 34.86 48.59 42.14 39.09 45.37 42.47
msp           CMPT      38.34 34.11 36.97 34.32 47.45 42.17 37.30 44.81 42.03
cmpt          CMPT      52.61 44.72 49.26 36.10 60.21 50.05 50.05 57.45 54.04
dcp           MoRA      48.52 -     -     -     53.14 -     -     -     51.42
mora          MoRA      52.56 -     -     -     56.39 -     -     -     52.97
mail          MAIL      55.42 -     -     -     46.39 -     -     -     52.06
""",
    ("food101", 0.7, 0.7): """
vilt          MemPrompt 67.25 46.13 51.90 42.38 76.43 58.90 64.47 73.04 70.13
map-attention MemPrompt 73.54 27.82 51.38 39.98 85.68 62.68 71.31 85.28 78.39
map-input     MemPrompt 74.25 27.82 51.17 29.68 86.30 57.93 72.24 85.91 79.11
memprompt     MemPrompt 75.15 80.81 78.11 60.63 86.52 74.07 72.39 86.12 79.76
msp           CMPT      73.77 57.22 65.13 56.87 86.34 71.88 71.58 85.91 78.89
cmpt          CMPT      80.37 85.34 82.78 67.60 87.48 77.52 78.40 87.36 82.83
dcp           MoRA      78.87 -     -     -     87.32 -     -     -     81.87
mora          MoRA      80.85 -     -     -     88.01 -     -     -     83.77
ragpt         MAIL      75.53 -     -     -     81.98 -     -     -     76.94
mail          MAIL      75.77 -     -     -     81.26 -     -     -     77.28
""",
    ("hateful_memes", 0.7, 0.7): """
vilt          MemPrompt 60.95 59.36 61.37 56.07 63.11 59.42 59.48 62.91 61.80
map-attention MemPrompt 61.66 59.44 58.50 59.04 64.57 58.33 61.06 61.75 58.10
map-input     MemPrompt 59.13 57.55 58.08 59.32 65.27 58.82 61.03 64.05 60.35
memprompt     MemPrompt 60.26 59.64 62.55 59.82 65.63 65.12 61.91 64.26 65.74
msp           MAIL      59.60 -     -     -     60.05 -     -     -     59.08
dcp           MoRA      62.82 -     -     -     64.12 -     -     -     66.08
mora          MoRA      69.43 -     -     -     70.68 -     -     -     70.15
ragpt         MAIL      64.10 -     -     -     62.57 -     -     -     63.47
mail          MAIL      63.47 -     -     -     62.73 -     -     -     63.11
""",
    ("mmimdb", 0.5, 0.5): """
dcp  MoRA 52.13 54.32 52.32
mora MoRA 54.62 57.61 55.88
""",
    ("mmimdb", 0.9, 0.9): """
dcp  MoRA 49.26 52.22 48.04
mora MoRA 50.67 53.57 51.64
""",
    ("food101", 0.5, 0.5): """
dcp  MoRA 82.11 89.12 85.24
mora MoRA 84.41 89.63 86.68
""",
    ("food101", 0.9, 0.9): """
dcp  MoRA 75.26 85.78 79.87
mora MoRA 78.41 86.77 81.09
""",
    ("hateful_memes", 0.5, 0.5): """
dcp  MoRA 62.32 64.46 66.02
mora MoRA 70.66 71.58 69.58
""",
    ("hateful_memes", 0.9, 0.9): """
dcp  MoRA 62.08 63.87 66.78
mora MoRA 68.52 68.78 68.37
""",
    ("mmimdb", 0.0, 1.0): "cmpt CMPT 46.97 56.32",
    ("mmimdb", 0.0, 0.0): "cmpt CMPT 63.58",
    ("food101", 0.0, 1.0): "cmpt CMPT 75.66 85.31",
    ("food101", 0.0, 0.0): "cmpt CMPT 94.47",
}
# Of CMPT, trained on complete clips: millions of trained parameters, then accuracy with
# audio only, with video only and with both; tables 2 and 4, and of the variants table 5
# (the weight of the alignment, without parameters), 7 (the rank), 9 (the adapter) and
# 10 (SigLIP). All are of one run.
CLIPS = {
    "crema_d": """
cmpt        0.157 67.20 76.21 88.84
cmpt-rank-2 0.303 65.32 75.54 87.63
cmpt-rank-4 0.598 65.46 76.61 87.77
cmpt-dora   0.229 67.07 73.12 88.04
cmpt-vera   0.082 66.13 71.64 86.02
cmpt-siglip -     65.73 35.35 84.68
""",
    "ave": """
cmpt            0.173 85.21 84.58 96.77
cmpt-rank-2     0.319 85.07 84.30 96.77
cmpt-rank-4     0.614 84.33 80.84 96.27
cmpt-dora       0.246 86.57 91.79 96.27
cmpt-vera       0.098 89.05 90.05 96.27
cmpt-siglip     -     86.32 30.60 94.78
cmpt-lambda-0.0 -     84.82 82.83 95.77
cmpt-lambda-0.1 -     84.33 83.08 96.02
cmpt-lambda-0.3 -     84.82 85.32 96.52
cmpt-lambda-0.4 -     84.33 81.84 96.52
cmpt-lambda-0.5 -     84.82 84.83 96.27
""",
    "kinetics_sound": """
cmpt        0.176 68.27 85.77 91.21
cmpt-rank-2 0.322 69.93 85.20 91.06
cmpt-rank-4 0.617 69.54 86.43 90.59
cmpt-dora   0.248 68.77 85.97 91.32
cmpt-vera   0.101 69.93 83.69 90.71
cmpt-siglip -     69.66 30.76 89.44
""",
}


def cases(n: int, scenarios: tuple[str, ...]) -> list[str]:
    """Return what rows of several figures were trained and tested without."""
    return {
        9: [f"{trained} {tested}" for trained in scenarios for tested in scenarios],
        3: [f"{scenario} {scenario}" for scenario in scenarios],
        2: [f"complete {scenario}" for scenario in scenarios[:2]],
        1: ["complete complete"],
    }[n]


def printed(data_set: str, rate: float, test_rate: float) -> pd.DataFrame:
    """Return a row per method: method, source, and a column per case."""
    if data_set in CLIPS:
        known = {
            (0.0, 1.0): {"audio": "complete video", "video": "complete audio"},
            (0.0, 0.0): {"both": "complete complete"},
        }.get((rate, test_rate), {})
        table = clip_figures(data_set).rename(columns=known)
        return table[["method", "source", *known.values()]]
    text = PUBLISHED.get((data_set, rate, test_rate), "").strip()
    n_figures = len(text.partition("\n")[0].split()) - 2
    names = cases(n_figures, DATA_SETS[data_set].scenarios) if text else []
    return read_text(text, ["method", "source", *names])


def published(data_set: str, rate: float, test_rate: float) -> pd.DataFrame:
    """Return the figures of the papers: method, trained, tested, published, source."""
    table = printed(data_set, rate, test_rate)
    long = table.melt(["method", "source"], var_name="case", value_name="published")
    parts = long["case"].astype(str).str.partition(" ")
    long = long.assign(trained=parts[0], tested=parts[2]) if len(long) else long
    columns = ["method", "source", "trained", "tested", "published"]
    return long.reindex(columns=columns).dropna()


def clip_figures(data_set: str) -> pd.DataFrame:
    """Return figures of clips: what is there, and millions of trained parameters."""
    names = ["method", "parameters", "audio", "video", "both"]
    return read_text(CLIPS.get(data_set, ""), names).assign(source="CMPT")


def read_text(text: str, names: list[str]) -> pd.DataFrame:
    """Read words between spaces; a dash is no figure."""
    return pd.read_csv(io.StringIO(text), sep=r"\s+", names=names, na_values="-")
