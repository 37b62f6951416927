"""The missing table has the protocol's exact counts; the blanked copy shows it."""

import importlib.util
import itertools
import random

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from robustmm.missingness import (
    SCENARIOS,
    apply_missing_table,
    drop_modalities,
    missing_table,
)

STRING_DTYPES = ["object", "str", "string", "category"]
if importlib.util.find_spec("pyarrow"):
    STRING_DTYPES += ["string[pyarrow]"]


def frame(n=20, dtype="object"):
    images = [f"{i}.png" for i in range(n)]
    texts = [f"text {i}" for i in range(n)]
    columns = {"image": images, "text": texts}
    df = pd.DataFrame(
        {name: pd.Series(cells, dtype=dtype) for name, cells in columns.items()}
    )
    return df.assign(year=range(n))


@pytest.mark.parametrize("n", [0, 1, 7, 10, 101])
@pytest.mark.parametrize("rate", [0, 0.1, 0.5, 0.7, 1])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_counts(n, rate, scenario):
    affected = int(n * rate)
    image = {"text": 0, "image": affected, "both": int(affected * 0.5)}[scenario]
    table = missing_table(n, rate, scenario, random_state=3)
    assert table.shape == (n,)
    assert table.dtype.kind == "i"
    counts = np.bincount(table, minlength=3).tolist()
    assert counts == [n - affected, affected - image, image]


# Rows of each split of MM-IMDb (movies), UPMC Food-101 (with text) and Hateful Memes;
# at 70%: complete rows, and in scenario "both" those without text and without image.
PROTOCOL = {
    "mmimdb train": (15552, 4666, 5443, 5443),
    "mmimdb dev": (2608, 783, 913, 912),
    "mmimdb test": (7799, 2340, 2730, 2729),
    "food101 train": (61127, 18339, 21394, 21394),
    "food101 val": (6845, 2054, 2396, 2395),
    "food101 test": (22716, 6815, 7951, 7950),
    "hateful memes train": (8500, 2550, 2975, 2975),
    "hateful memes dev": (500, 150, 175, 175),
    "hateful memes test_seen": (1000, 300, 350, 350),
}


@pytest.mark.parametrize("split", PROTOCOL)
def test_the_tables_of_the_published_protocol(split):
    n, complete, text, image = PROTOCOL[split]
    for seed in (0, 42):
        both = missing_table(n, 0.7, "both", random_state=seed)
        assert np.bincount(both).tolist() == [complete, text, image]
        one = missing_table(n, 0.7, "text", random_state=seed)
        assert np.bincount(one).tolist() == [complete, n - complete]
        other = missing_table(n, 0.7, "image", random_state=seed)
        assert np.bincount(other).tolist() == [complete, 0, n - complete]


def test_all_plots_of_a_movie_share_the_code_that_was_drawn_per_movie():
    plots = np.repeat(np.arange(2608), np.arange(2608) % 4 + 1)
    table = pd.Series(missing_table(len(plots), 0.7, "both", 0, groups=plots))
    movies = table.groupby(plots).agg(["nunique", "first"])
    assert movies["nunique"].eq(1).all()
    assert np.bincount(movies["first"]).tolist() == [783, 913, 912]


def test_a_seed_repeats_and_another_differs():
    first = missing_table(200, 0.7, "both", random_state=1)
    np.testing.assert_array_equal(first, missing_table(200, 0.7, "both", 1))
    assert (first != missing_table(200, 0.7, "both", 2)).any()
    assert (missing_table(200, 0.7, "both") != missing_table(200, 0.7, "both")).any()


@pytest.mark.parametrize("make", [np.random.RandomState, np.random.default_rng])
def test_generators_advance_and_repeat(make):
    generator = make(5)
    first, second = (missing_table(200, 0.5, "both", generator) for _ in range(2))
    assert (first != second).any()
    np.testing.assert_array_equal(first, missing_table(200, 0.5, "both", make(5)))


def test_global_generator_is_untouched():
    before = np.random.get_state()[1].copy()
    missing_table(50, 0.5, "both", random_state=0)
    missing_table(50, 0.5, "both")
    after = np.random.get_state()[1]
    np.testing.assert_array_equal(before, after)


def test_rows_of_each_code_are_spread():
    table = missing_table(3000, 0.7, "both", random_state=0)
    for code in range(3):
        assert 1300 < np.flatnonzero(table == code).mean() < 1700


@pytest.mark.parametrize("kind", [list, np.array, pd.Series])
def test_groups_share_a_code_and_counts_are_over_groups(kind):
    names = [f"movie {i}" for i in range(10) for _ in range(1 + i % 3)]
    groups = kind(list(np.random.default_rng(0).permutation(names)))
    table = missing_table(len(names), 0.7, "both", 0, groups)
    codes = pd.DataFrame({"group": list(groups), "code": table}).groupby("group").code
    assert (codes.nunique() == 1).all()
    assert np.bincount(codes.first()).tolist() == [3, 4, 3]


@pytest.mark.parametrize("rate", [-0.1, 1.01, 70, float("nan"), "0.7"])
def test_rate_out_of_range(rate):
    with pytest.raises(ValueError, match=r"rate must be in \[0, 1\], got"):
        missing_table(10, rate, "text")


@pytest.mark.parametrize("scenario", ["img", "Text", None, 1])
def test_unknown_scenario_lists_the_choices(scenario):
    with pytest.raises(ValueError, match=f"'text', 'image', 'both'.*got {scenario!r}"):
        missing_table(10, 0.5, scenario)


@pytest.mark.parametrize("n", [-1, 1.5])
def test_bad_n(n):
    with pytest.raises(ValueError, match="n must be a non-negative integer, got"):
        missing_table(n, 0.5, "text")


def test_bad_groups():
    with pytest.raises(ValueError, match=r"groups must have 3 entries, .* got 2"):
        missing_table(3, 0.5, "text", groups=["a", "b"])
    with pytest.raises(ValueError, match="groups must have no missing entry, got 1"):
        missing_table(3, 0.5, "text", groups=["a", None, "b"])


@pytest.mark.parametrize("dtype", STRING_DTYPES)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_blanked_cells_are_those_of_the_table(dtype, scenario):
    df = frame(dtype=dtype)
    before = df.copy(deep=True)
    result, table = drop_modalities(df, 0.7, scenario, 4, return_table=True)
    np.testing.assert_array_equal(table, missing_table(20, 0.7, scenario, 4))
    np.testing.assert_array_equal(result["text"].isna(), table == 1)
    np.testing.assert_array_equal(result["image"].isna(), table == 2)
    pd.testing.assert_frame_equal(df, before)
    assert result.dtypes.tolist() == df.dtypes.tolist()
    for column in ("image", "text"):
        kept = result[column].notna()
        assert result.loc[kept, column].tolist() == df.loc[kept, column].tolist()
    pd.testing.assert_series_equal(result["year"], df["year"])


def test_object_columns_get_none():
    result = drop_modalities(frame(), 1.0, "text", 0)
    assert result["text"].tolist() == [None] * 20


def test_image_cells_of_every_type_are_kept_as_they_are():
    pictures = [
        Image.new("RGB", (2, 2)),
        np.zeros((2, 2), dtype=np.uint8),
        b"bytes",
        "a.png",
    ]
    column = np.empty(4, dtype=object)
    column[:] = pictures
    df = pd.DataFrame({"image": column, "text": list("abcd")})
    result, table = drop_modalities(df, 0.5, "image", 0, return_table=True)
    for cell, original, code in zip(result["image"], pictures, table, strict=True):
        assert cell is (None if code == 2 else original)


@pytest.mark.parametrize(
    "index",
    [
        ["a"] * 20,
        pd.MultiIndex.from_product([range(4), list("vwxyz")]),
        range(40, 20, -1),
    ],
)
def test_any_index_is_kept(index):
    df = frame().set_axis(index)
    result, table = drop_modalities(df, 0.5, "both", 0, return_table=True)
    assert result.index.equals(df.index)
    np.testing.assert_array_equal(result["text"].isna(), table == 1)


def test_a_row_keeps_its_last_modality():
    df = frame()
    df.loc[:9, "image"] = None
    df.loc[15:, "text"] = " "
    result, table = drop_modalities(df, 1.0, "text", 0, return_table=True)
    assert result.loc[:9, "text"].notna().all()
    assert result.loc[10:, "text"].isna().all()
    assert table.tolist() == [0] * 10 + [1] * 10
    result, table = drop_modalities(df, 1.0, "image", 0, return_table=True)
    assert result.loc[:14, "image"].isna().all()
    assert result.loc[15:, "image"].notna().all()
    assert table.tolist() == [2] * 15 + [0] * 5


def test_a_column_without_values_stays():
    df = pd.DataFrame({"image": [None] * 4, "text": list("abcd")})
    pd.testing.assert_frame_equal(drop_modalities(df, 1.0, "both", 0), df)
    df = pd.DataFrame({"image": [np.nan] * 4, "text": list("abcd")})
    pd.testing.assert_frame_equal(drop_modalities(df, 1.0, "image", 0), df)


def test_groups_and_named_columns():
    df = frame().rename(columns={"image": "poster", "text": "plot"})
    groups = np.repeat(range(10), 2)
    result = drop_modalities(
        df, 0.5, "text", 0, groups, image_column="poster", text_column="plot"
    )
    assert result["plot"].isna().to_numpy().reshape(10, 2).sum(1).tolist().count(2) == 5


def test_errors_before_anything_is_drawn():
    with pytest.raises(ValueError, match="rate must be"):
        drop_modalities(frame(), 2, "text")
    with pytest.raises(ValueError, match="column 'poster'"):
        drop_modalities(frame(), 0.5, "text", image_column="poster")
    with pytest.raises(TypeError, match=r"X must be a DataFrame .* got list"):
        drop_modalities([["a", "b"]], 0.5, "text")


def test_a_given_table_is_applied():
    df = frame(6)
    df.loc[3, "image"] = None
    before = df.copy()
    result = apply_missing_table(df, [0, 1, 2, 1, 2, 0])
    assert result["text"].isna().tolist() == [False, True] + [False] * 4
    assert result["image"].isna().tolist() == [False, False, True, True, True, False]
    assert result["year"].equals(df["year"])
    pd.testing.assert_frame_equal(df, before)


@pytest.mark.parametrize("dtype", STRING_DTYPES)
def test_a_drawn_table_gives_what_drop_modalities_gives(dtype):
    df = frame(dtype=dtype)
    dropped, table = drop_modalities(df, 0.7, "both", 0, return_table=True)
    pd.testing.assert_frame_equal(apply_missing_table(df, table), dropped)


def test_tables_that_cannot_be_applied():
    with pytest.raises(
        ValueError, match=r"20 entries, one a row, got the shape \(3,\)"
    ):
        apply_missing_table(frame(), [0, 1, 2])
    with pytest.raises(ValueError, match=r"codes 0, 1 and 2 only, got \[3\]"):
        apply_missing_table(frame(2), [0, 3])
    with pytest.raises(ValueError, match="column 'poster'"):
        apply_missing_table(frame(2), [0, 1], image_column="poster")
    with pytest.raises(TypeError, match=r"X must be a DataFrame .* got list"):
        apply_missing_table([["a", "b"]], [0])


@pytest.mark.parametrize("scenario", ["text", "image", "both"])
def test_nested_rates_only_add_holes(scenario):
    tables = [
        missing_table(101, rate, scenario, random_state=4, order="nested")
        for rate in (0.1, 0.3, 0.5, 0.9, 1.0)
    ]
    for low, high in itertools.pairwise(tables):
        assert (high == low)[low > 0].all()
        assert (high > 0).sum() > (low > 0).sum()
    for rate, table in zip((0.1, 0.3, 0.5, 0.9, 1.0), tables, strict=True):
        same = missing_table(101, rate, scenario, random_state=4)
        assert np.bincount(table, minlength=3).tolist() == (
            np.bincount(same, minlength=3).tolist()
        )


def test_a_higher_rate_of_both_may_change_what_a_row_loses_otherwise():
    low, high = (missing_table(101, r, "both", random_state=4) for r in (0.3, 0.9))
    assert not (high == low)[low > 0].all()


def test_the_authors_draws_are_python_s_sample():
    total, ratio = 40, 0.7
    theirs = random.Random(0)
    expected = []
    for n in (total, 10, 20):  # training, validation and test in turn
        codes = [0] * n
        missing = theirs.sample(range(n), int(n * ratio))
        for i in missing:
            codes[i] = 1
        for i in theirs.sample(missing, int(len(missing) * 0.5)):
            codes[i] = 2
        expected.append(codes)
    generator = random.Random(0)
    found = [
        missing_table(n, ratio, "both", generator, order="map").tolist()
        for n in (total, 10, 20)
    ]
    assert found == expected
    first = missing_table(total, ratio, "both", 0, order="map")
    assert first.tolist() == expected[0]
    images = missing_table(total, ratio, "image", 0, order="map")
    assert np.bincount(images).tolist() == [12, 0, 28]
    groups = np.repeat(np.arange(20), 2)
    of_groups = missing_table(40, ratio, "both", 0, groups, order="map")
    assert (of_groups[::2] == of_groups[1::2]).all()


def test_orders_and_generators_that_do_not_go_together_are_named():
    with pytest.raises(ValueError, match="order must be one of"):
        missing_table(4, 0.5, "text", order="random")
    with pytest.raises(ValueError, match='order must be "map" with'):
        missing_table(4, 0.5, "text", random.Random(0))
    with pytest.raises(ValueError, match="random_state must be an int or a random"):
        missing_table(4, 0.5, "text", order="map")


def test_drop_modalities_takes_the_order():
    df = pd.DataFrame({"image": ["a.png"] * 20, "text": ["a cat"] * 20})
    for order in ("split", "nested", "map"):
        result, table = drop_modalities(
            df, 0.7, "both", 3, return_table=True, order=order
        )
        expected = missing_table(20, 0.7, "both", 3, order=order)
        np.testing.assert_array_equal(table, expected)
        np.testing.assert_array_equal(result["image"].isna(), expected == 2)


# Other modalities ---------------------------------------------------------------------

AV = ("audio", "video")


def test_image_and_text_are_the_default_and_the_first_of_any():
    for scenario in ("both", "text", "image"):
        plain = missing_table(41, 0.7, scenario, random_state=3)
        other = {"text": "video", "image": "audio"}.get(scenario, scenario)
        again = missing_table(41, 0.7, other, random_state=3, modalities=AV)
        np.testing.assert_array_equal(plain, again)


@pytest.mark.parametrize("order", ["split", "nested"])
def test_each_of_three_is_lost_equally_often(order):
    three = ("image", "text", "audio")
    drawn = missing_table(90, 2 / 3, "each", 0, order=order, modalities=three)
    assert np.bincount(drawn).tolist() == [30, 20, 20, 0, 20]


def test_a_row_keeps_one_of_three():
    df = pd.DataFrame({"i": ["a.png"] * 3, "text": ["x", None, None], "a": [None] * 3})
    columns = {"image": "i", "text": "text", "audio": "a"}
    left = apply_missing_table(df, [4, 4, 2], modalities=columns)
    assert left.isna().to_numpy().tolist() == [
        [True, False, True],
        [False, True, True],
        [False, True, True],
    ]
    two_at_once = apply_missing_table(df[:1], [6], modalities=columns)
    assert two_at_once.notna().to_numpy().tolist() == [[True, True, False]]


def test_what_cannot_be_drawn_of_other_modalities_is_refused():
    with pytest.raises(ValueError, match=r"scenario must be one of \('video', 'audio'"):
        missing_table(3, 0.5, "text", modalities=AV)
    three = ("image", "text", "audio")
    with pytest.raises(ValueError, match="scenario must be one of"):
        missing_table(3, 0.5, "both", modalities=three)
    with pytest.raises(ValueError, match='order must not be "map"'):
        missing_table(3, 0.5, "each", 0, order="map", modalities=three)
    df = pd.DataFrame({"audio": ["a.wav"], "video": ["a.mp4"]})
    with pytest.raises(ValueError, match="codes 0, 1 and 2 only"):
        apply_missing_table(df, [3], modalities=AV)
