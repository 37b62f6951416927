"""A shop's whole way: a table of 13 columns, a model, a pipeline, a server, commands.

``python tests/journeys/shop.py FOLDER`` writes everything below a new folder, says what
it does, and stops at the first thing that is not as it should be.
"""

import argparse
import base64
import json
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import robustmm
from robustmm.datasets import make_scenes

SERVE = Path(__file__).parents[2] / "examples" / "serve.py"
CLIP = "robustmm/tiny-clip"
COLUMNS = {"image_column": "photo", "text_column": "title"}
NUMBERS = ["price", "weight", "stock", "rating"]
KINDS = ["brand", "colour", "country"]
# As much as batches of other sizes may differ by in float32.
TOLERANCE = 1e-5
OPEN = """
import sys, numpy, pandas, torch
torch.set_num_threads(1)
import robustmm
model = robustmm.load(sys.argv[1], device="cpu")
numpy.save(sys.argv[3], model.predict_proba(pandas.read_pickle(sys.argv[2])))
"""


def write_table(folder: Path, n: int) -> pd.DataFrame:
    """Write photos and ``train.csv``, ``test.csv``; 13 columns, 60% of rows with holes.

    The numbers and kinds know something of the category that photo and title do not.
    """
    X, y = make_scenes(n, n_classes=4, random_state=0)
    rng = np.random.default_rng(0)
    (folder / "photos").mkdir(parents=True)
    names = [f"photos/{i:04d}.png" for i in range(n)]
    for name, picture in zip(names, X["image"], strict=True):
        picture.save(folder / name)
    code = y.astype("category").cat.codes.to_numpy()
    table = pd.DataFrame(
        {
            "sku": [f"{i:08d}" for i in range(n)],
            "listed": pd.Timestamp("2026-01-01") + pd.to_timedelta(np.arange(n), "D"),
            "photo": names,
            "title": X["text"],
            "price": (10 + 5 * code + rng.normal(0, 5, n)).round(2),
            "weight": np.where(rng.random(n) < 0.2, np.nan, rng.integers(1, 99, n)),
            "stock": rng.integers(0, 50, n),
            "rating": rng.uniform(1, 5, n).round(1),
            "brand": rng.choice(["Ahlke", "Bo & Co", "None"], n),
            "colour": np.where(rng.random(n) < 0.7, y.str[:1], "?"),
            "country": rng.choice(["NA", "DE", "SE"], n),
            "on_sale": rng.random(n) < 0.3,
            "category": y,
        }
    )
    holes = robustmm.drop_modalities(table, 0.6, "both", 0, **COLUMNS)
    train, test = train_test_split(holes, test_size=0.4, random_state=0)
    for part, name in ((train, "train.csv"), (test, "test.csv")):
        part.to_csv(folder / name, index=False)
    return pd.read_csv(folder / "train.csv"), pd.read_csv(folder / "test.csv")


def check_close(found, expected, what: str) -> None:
    """Raise unless probabilities are the same up to rounding."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE, err_msg=what)


def fit_classifier(folder: Path, train, test):
    """Fit on 13 columns, predict from two, and evaluate by what is missing."""
    clf = robustmm.CMPTClassifier(
        CLIP,
        "robustmm/tiny-bert",
        image_root=folder,
        max_epochs=3,
        lr=3e-3,
        batch_size=16,
        random_state=0,
        device="cpu",
        **COLUMNS,
    )
    clf.fit(train, train["category"])
    proba = clf.predict_proba(test)
    two = test[["title", "photo"]]
    check_close(clf.predict_proba(two), proba, "two columns")
    check_close(clf.predict_proba(two.iloc[[3]]), proba[[3]], "one row")
    scores = robustmm.score_by_pattern(clf, test, test["category"], **COLUMNS)
    assert scores.loc["all", "n_rows"] == len(test)
    assert scores.loc["all", "score"] > 0.4, scores
    print(scores.round(3).to_string())
    return clf


def fit_pipeline(folder: Path, train, test):
    """Join what the probe sees, cross-fitted, with the numbers and kinds."""
    from robustmm import OutOfFoldFeatures

    probe = robustmm.LinearProbeClassifier(
        CLIP, image_root=folder, device="cpu", **COLUMNS
    )
    seen = OutOfFoldFeatures(probe, cv=3, random_state=0)
    joined = ColumnTransformer(
        [
            ("seen", seen, [*COLUMNS.values()]),
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), NUMBERS),
            ("kinds", OneHotEncoder(handle_unknown="ignore"), KINDS),
        ]
    )
    model = make_pipeline(joined, LogisticRegression(max_iter=1000))
    model.fit(train, train["category"])
    alone = probe.fit(train, train["category"]).score(test, test["category"])
    score = model.score(test, test["category"])
    print(f"photo and title {alone:.3f}, with the other columns {score:.3f}")
    assert score > alone
    return model


def reopen(folder: Path, name: str, model, test) -> Path:
    """Save a model, and have another process open it and predict."""
    path, rows, answers = (folder / f"{name}{end}" for end in ("", ".rows", ".npy"))
    robustmm.save(model, path)
    test.to_pickle(rows)
    command = [sys.executable, "-c", OPEN, *map(str, (path, rows, answers))]
    subprocess.run(command, check=True)
    check_close(np.load(answers), model.predict_proba(test), name)
    return path


def serve_and_ask(folder: Path, saved: Path, clf, test, n_requests: int) -> None:
    """Serve a saved model, and compare answers from 8 threads with ``predict``."""
    rows = [_body(folder, row) for row in test[[*COLUMNS.values()]].to_dict("records")]
    labels, proba = clf.predict(test), clf.predict_proba(test)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(SERVE), str(saved), "--port", str(port)]
    with open(folder / "server.log", "w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _wait_for(port, server)
        shares = [range(t, n_requests, 8) for t in range(8)]
        start = time.perf_counter()
        with ThreadPoolExecutor(8) as pool:
            parts = list(pool.map(lambda share: _ask(port, rows, share), shares))
        rate = n_requests / (time.perf_counter() - start)
    finally:
        server.terminate()
        server.wait()
    answers = {i: answer for part in parts for i, answer in part}
    assert len(answers) == n_requests
    for i, answer in answers.items():
        place = i % len(rows)
        found = [answer["probabilities"][name] for name in clf.classes_]
        check_close(found, proba[place], f"request {i}")
        assert answer["prediction"] == labels[place], i
        absent = test[[*COLUMNS.values()]].iloc[place].isna().to_numpy()
        assert answer["missing"] == list(np.array(["image", "text"])[absent]), i
    print(f"{n_requests} answers from 8 threads, {rate:.0f} a second")


def _body(folder: Path, row: dict) -> bytes:
    image, text = (None if pd.isna(row[c]) else row[c] for c in COLUMNS.values())
    if image is not None:
        image = base64.b64encode((folder / image).read_bytes()).decode()
    return json.dumps({"image": image, "text": text}).encode()


def _wait_for(port: int, server: subprocess.Popen) -> None:
    for _ in range(600):
        try:
            connection = HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/health")
            assert connection.getresponse().status == 200
            return
        except OSError:
            assert server.poll() is None, "the server has ended"
            time.sleep(0.1)
    raise TimeoutError("the server has not started")


def _ask(port: int, rows: list[bytes], share: range) -> list[tuple[int, dict]]:
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    answers, headers = [], {"content-type": "application/json"}
    for i in share:
        connection.request("POST", "/predict", rows[i % len(rows)], headers)
        response = connection.getresponse()
        answer = json.loads(response.read())
        assert response.status == 200, answer
        answers.append((i, answer))
    return answers


def use_commands(folder: Path, test) -> None:
    """Fit, predict and report on the same files, and compare with the model's own."""
    model, train_csv, test_csv = (
        str(folder / name) for name in ("by_command", "train.csv", "test.csv")
    )
    words = ["--image-column", "photo", "--text-column", "title", "--quiet"]
    label = ["--label", "category"]
    method = ["--method", "LinearProbe", "--backbone", CLIP]
    _run("fit", train_csv, *label, "--out", model, *method, *words)
    out = str(folder / "labels.csv")
    keep = ["--keep", "sku", "--proba", "--quiet"]
    _run("predict", model, test_csv, "--out", out, *keep)
    report = str(folder / "report")
    said = _run("report", model, test_csv, *label, "--out", report, "--quiet")
    assert "image_missing" in said
    assert (folder / "report" / "missing_rates.png").is_file()
    assert "by_command" not in _run("info", model)
    opened = robustmm.load(model, device="cpu").set_params(image_root=str(folder))
    labels = pd.read_csv(out, dtype={"sku": str})
    assert labels["sku"].tolist() == [f"{sku:08d}" for sku in test["sku"]]
    assert labels["prediction"].tolist() == opened.predict(test).tolist()
    columns = [f"proba_{name}" for name in opened.classes_]
    check_close(labels[columns], opened.predict_proba(test), "predict")
    assert _run("fit", train_csv, *label, "--out", model, *method, *words, code=1) == ""


def _run(*words: str, code: int = 0) -> str:
    command = [sys.executable, "-m", "robustmm", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return done.stdout


def main() -> None:
    """Go the whole way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--requests", type=int, default=1000)
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    folder = args.folder.resolve()

    train, test = write_table(folder, args.rows)
    assert train.shape[1] == test.shape[1] == 13
    print(f"{len(train)} rows to fit, {len(test)} to test, {train.shape[1]} columns")
    clf = fit_classifier(folder, train, test)
    model = fit_pipeline(folder, train, test)
    saved = reopen(folder, "classifier", clf, test)
    reopen(folder, "pipeline", model, test)
    print("Both open in another process")
    serve_and_ask(folder, saved, clf, test, args.requests)
    use_commands(folder, test)
    print("The commands say the same")


if __name__ == "__main__":
    main()
