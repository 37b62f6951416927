"""A table with holes and image files, in all formats, and models fitted on it."""

import pytest

import robustmm
from robustmm.commands import main
from robustmm.datasets import make_scenes


def write_shop(folder, n=24):
    """Write images and ``table.csv``, ``.tsv``, ``.jsonl``, ``.parquet``."""
    X, y = make_scenes(n, n_classes=2, random_state=0)
    images = folder / "images"
    images.mkdir(parents=True)
    for i, picture in enumerate(X["image"]):
        picture.save(images / f"{i}.png")
    names = [f"images/{i}.png" for i in range(n)]
    table = X.assign(image=names, id=[f"{i:03d}" for i in range(n)], kind=y)
    table["tags"] = [f"{kind}|odd" if i % 2 else kind for i, kind in enumerate(y)]
    table.loc[1, "image"] = None
    table.loc[2, "text"] = None
    table.loc[3, ["image", "text"]] = None
    table.to_csv(folder / "table.csv", index=False)
    table.to_csv(folder / "table.tsv", index=False, sep="\t")
    table.to_json(folder / "table.jsonl", orient="records", lines=True)
    table.to_parquet(folder / "table.parquet", index=False)
    return table


@pytest.fixture(scope="session")
def shop(tmp_path_factory):
    """The folder of the table."""
    folder = tmp_path_factory.mktemp("shop")
    write_shop(folder)
    return folder


@pytest.fixture(scope="session")
def table(tmp_path_factory):
    """The table itself; its image paths start from the folder of ``shop``."""
    return write_shop(tmp_path_factory.mktemp("same"))


def fit(shop, out, *words):
    backbone = "robustmm/tiny-clip"
    command = ["fit", str(shop / "table.csv"), "--out", str(out), "--device", "cpu"]
    return main([*command, "--backbone", backbone, "--quiet", *words])


@pytest.fixture(scope="session")
def model(shop, tmp_path_factory):
    """A saved probe of one label a row."""
    out = tmp_path_factory.mktemp("models") / "probe"
    assert fit(shop, out, "--label", "kind", "--method", "LinearProbe") == 0
    return out


@pytest.fixture(scope="session")
def model_of_tags(shop, tmp_path_factory):
    """A saved probe of any number of labels a row."""
    out = tmp_path_factory.mktemp("models") / "tags"
    words = ["--label", "tags", "--labels-separator", "|", "--method", "linearprobe"]
    assert fit(shop, out, *words) == 0
    return out


@pytest.fixture
def opened(model, shop):
    """The probe, opened by hand, for the shop's images."""
    return robustmm.load(model, device="cpu").set_params(image_root=str(shop))
