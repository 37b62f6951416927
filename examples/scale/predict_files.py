"""Predict parquet files into parquet files, with pictures on another file system.

    python examples/scale/predict_files.py

Everything is in fsspec's file system of this process's memory, which stands for S3.
"""

import fsspec
import numpy as np
import pandas as pd
from PIL import Image

from robustmm import LinearProbeClassifier
from robustmm.datasets import make_scenes


def make_bucket(X: pd.DataFrame) -> None:
    """Write pictures, and two files of a table of their names."""
    files = fsspec.filesystem("memory")
    for i, picture in enumerate(X["image"]):
        with files.open(f"/bucket/pictures/{i}.png", "wb") as stream:
            Image.fromarray(np.asarray(picture)).save(stream, "PNG")
    names = X.assign(image=[f"{i}.png" for i in range(len(X))])
    for i, part in enumerate((names.iloc[:20], names.iloc[20:])):
        with files.open(f"/bucket/table/{i}.parquet", "wb") as stream:
            part.to_parquet(stream)


def answer(clf) -> list[str]:
    """Return the files of the labels."""
    # [predict]
    from robustmm.distributed import predict

    return predict(
        clf,
        "memory://bucket/table",  # or "s3://bucket/table/*.parquet"
        output="memory://bucket/labels",
        image_root="memory://bucket/pictures",
        keep=["text"],
        storage_options={},  # of the file system, such as {"profile": "shop"} for S3
        verbose=1,
    )
    # [end]


def main() -> None:
    """Fit, lay out the bucket and predict it."""
    X, y = make_scenes(40, n_classes=2, random_state=0)
    make_bucket(X)
    clf = LinearProbeClassifier("robustmm/tiny-clip").fit(X, y)
    found = []
    for file in answer(clf):
        with fsspec.open(file) as stream:
            found.append(pd.read_parquet(stream))
    same = pd.concat(found)["prediction"].to_numpy() == clf.predict(X)
    print(f"{same.mean():.0%} as predict says")


if __name__ == "__main__":
    main()
