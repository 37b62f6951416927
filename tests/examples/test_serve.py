"""The application: its answers are the model's, and strangers are held off."""

import base64
import importlib.util
import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import anyio
import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from sklearn.pipeline import make_pipeline

import robustmm
from robustmm.datasets import make_scenes

SCRIPT = Path(__file__).parents[2] / "examples" / "serve.py"
SCRIPT_TAG = "<script>alert(1)</script>"
silent = pytest.mark.filterwarnings("ignore:.*neither image nor text")
# Asked for a rehearsal at the start, with a row of neither.
pytestmark = silent


@pytest.fixture(scope="module")
def serve():
    spec = importlib.util.spec_from_file_location("serve_example", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def scenes():
    return make_scenes(24, n_classes=2, random_state=0)


@pytest.fixture(scope="module")
def clf(scenes):
    return robustmm.LinearProbeClassifier("robustmm/tiny-clip").fit(*scenes)


@pytest.fixture
def client(serve, clf):
    app = serve.create_app(clf, max_bytes=100_000, max_pixels=10_000)
    with TestClient(app) as client:
        yield client


def png(picture) -> bytes:
    stream = BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def expected(clf, image, text):
    row = pd.DataFrame({"image": [image], "text": [text]}, dtype=object)
    return clf.predict(row)[0], clf.predict_proba(row)[0]


CASES = [(True, True), (True, False), (False, True), (False, False)]


@pytest.mark.parametrize(("has_image", "has_text"), CASES)
def test_answers_are_the_models_whatever_is_missing(
    has_image, has_text, client, clf, scenes
):
    image = png(scenes[0]["image"][0]) if has_image else None
    text = scenes[0]["text"][0] if has_text else None
    label, proba = expected(clf, image, text)
    words = base64.b64encode(image).decode() if image else None
    as_json = client.post("/predict", json={"image": words, "text": text})
    files = {"image": ("a.png", image)} if image else None
    as_form = client.post("/upload", files=files, data={"text": text} if text else None)
    assert as_json.status_code == as_form.status_code == 200
    assert as_json.json() == as_form.json()
    answer = as_json.json()
    assert answer["prediction"] == label
    assert list(answer["probabilities"]) == ["beach", "forest"]
    np.testing.assert_allclose([*answer["probabilities"].values()], proba, atol=1e-6)
    names = {"image": has_image, "text": has_text}
    assert answer["missing"] == [name for name, here in names.items() if not here]


def test_a_blank_text_and_an_empty_file_are_missing(client):
    # What a browser sends for a form that nobody filled in.
    files = {"image": ("", b"", "application/octet-stream")}
    answer = client.post("/upload", files=files, data={"text": " "})
    assert answer.json()["missing"] == ["image", "text"]


def test_a_data_uri_is_read(client, scenes):
    words = base64.b64encode(png(scenes[0]["image"][0])).decode()
    plain = client.post("/predict", json={"image": words}).json()
    uri = client.post("/predict", json={"image": f"data:image/png;base64,{words}"})
    assert uri.json() == plain


def test_threads_get_the_answers_of_one(client, scenes):
    texts = list(scenes[0]["text"][:8]) * 4

    def ask(text):
        return client.post("/predict", json={"text": text}).json()

    alone = [ask(text) for text in texts[:8]]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(ask, texts))
    assert together == alone * 4


def test_answers_are_computed_beside_the_loop(client, clf, monkeypatch):
    names = []

    def predict_proba(X):
        names.append(threading.current_thread().name)
        return np.array([[0.25, 0.75]])

    monkeypatch.setattr(clf, "predict_proba", predict_proba)
    client.post("/predict", json={"text": "a"})
    assert "AnyIO worker thread" in names[0]


REFUSED = {
    "base64": ({"image": "%%%"}, "image: must be base64"),
    "image": ({"image": "aGVsbG8="}, "image: not an image in a format that"),
    "path": ({"image": "/etc/passwd"}, "image: "),
    "text": ({"text": "a" * 20_001}, "text: String should have at most 20000"),
    "key": ({"txt": "a"}, "txt: Extra inputs"),
    "type": ({"text": 3}, "text: Input should be a valid string"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_422_and_one_line(name, client):
    body, reason = REFUSED[name]
    answer = client.post("/predict", json=body)
    assert answer.status_code == 422
    assert list(answer.json()) == ["error"]
    error = answer.json()["error"]
    assert error.startswith(reason)
    assert "\n" not in error
    assert len(error) < 200


def test_what_is_no_json_is_422(client):
    headers = {"content-type": "application/json"}
    answer = client.post("/predict", content=b"{", headers=headers)
    assert answer.status_code == 422
    assert "JSON" in answer.json()["error"]


def test_an_image_of_too_many_pixels_is_refused_by_its_header(client):
    image = png(Image.new("L", (101, 100)))
    answer = client.post("/upload", files={"image": ("a.png", image)})
    assert answer.status_code == 422
    reason = "image: an image must have 1 to 10000 pixels, got 101 x 100"
    assert answer.json()["error"] == reason


def test_reading_stops_with_the_bytes_that_are_too_many(serve):
    received = []

    async def receive():
        received.append(10)
        return {"type": "http.request", "body": bytes(10), "more_body": True}

    async def reads_all(scope, receive, send):
        while True:
            await receive()

    limited = serve.BodyLimit(reads_all, max_bytes=35)
    with pytest.raises(serve.HTTPException) as refused:
        anyio.run(limited, {}, receive, None)
    assert refused.value.status_code == 413
    assert len(received) == 4


@pytest.mark.parametrize("path", ["/predict", "/upload", "/"])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_long_body_is_413(path, chunked, client):
    kind = "application/json" if path == "/predict" else "multipart/form-data"
    headers = {"content-type": f"{kind}; boundary=x"}
    head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    content = (head + bytes(10_000) for _ in range(20)) if chunked else bytes(200_000)
    if not chunked:
        content = head + content
    answer = client.post(path, content=content, headers=headers)
    assert answer.status_code == 413
    assert "MiB at most" in answer.text
    assert answer.headers["content-type"].startswith(
        "text/html" if path == "/" else "application/json"
    )


def test_the_form_says_what_there_is_to_do(client, clf):
    answer = client.get("/")
    assert answer.status_code == 200
    assert 'enctype="multipart/form-data"' in answer.text
    assert "The answer will be here" in answer.text
    assert "LinearProbeClassifier tells 2 classes apart" in answer.text


def test_the_page_shows_bars_and_what_was_missing(client, clf, scenes):
    text = scenes[0]["text"][0]
    label, proba = expected(clf, None, text)
    answer = client.post("/", data={"text": text})
    assert f"<h2>{label}</h2>" in answer.text
    assert f"width:{100 * proba.max():.1f}%" in answer.text
    assert "There was no picture" in answer.text
    assert "There was neither" in client.post("/", data={"text": ""}).text


def test_nothing_that_was_sent_becomes_html(client, scenes):
    image = png(scenes[0]["image"][0])
    files = {"image": (SCRIPT_TAG, image)}
    answer = client.post("/", files=files, data={"text": f"</textarea>{SCRIPT_TAG}"})
    assert answer.status_code == 200
    assert "<script" not in answer.text
    assert answer.text.count("</textarea>") == 1
    assert "&lt;script&gt;" in answer.text
    files = {"image": ("a", SCRIPT_TAG.encode())}
    answer = client.post("/", files=files, data={"text": "typed"})
    assert answer.status_code == 422
    assert ">\ntyped</textarea>" in answer.text
    assert "<script" not in answer.text
    assert 'class="error"' in answer.text


def test_a_class_cannot_become_html_either(serve):
    answer = serve.Answer(
        prediction=SCRIPT_TAG, probabilities={SCRIPT_TAG: 1.0}, missing=[]
    )
    assert "<script" not in serve._result(answer, None)


def test_pages_forbid_scripts_and_frames(client):
    for answer in (client.get("/"), client.post("/", data={"text": "a"})):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "http" not in answer.text.replace("text/html", "")


def test_health_and_unknown_paths(client):
    health = client.get("/health").json()
    assert health == {"status": "ok", "model": "LinearProbeClassifier"}
    assert client.get("/nothing").status_code == 404
    assert client.get("/nothing").json() == {"error": "Not Found"}


def test_several_labels_are_a_list(serve, scenes):
    X, y = scenes
    tags = pd.DataFrame({"sand": y == "beach", "any": np.arange(len(y)) % 2}).astype(
        int
    )
    clf = robustmm.LinearProbeClassifier("robustmm/tiny-clip").fit(X, tags)
    labels, proba = expected(clf, None, X["text"][0])
    with TestClient(serve.create_app(clf)) as client:
        answer = client.post("/predict", json={"text": X["text"][0]}).json()
        page = client.post("/", data={"text": X["text"][0]})
    names = [name for name, on in zip(tags, labels, strict=True) if on]
    assert answer["prediction"] == names
    assert answer["probabilities"] == pytest.approx(
        dict(zip(tags, proba, strict=True)), abs=1e-6
    )
    assert f"<h2>{', '.join(names) or 'none of the labels'}</h2>" in page.text


def test_numbers_are_numbers(serve, scenes):
    clf = robustmm.LinearProbeClassifier("robustmm/tiny-clip")
    clf.fit(scenes[0], (scenes[1] == "beach").astype(int))
    with TestClient(serve.create_app(clf)) as client:
        answer = client.post("/predict", json={"text": "a"}).json()
    assert answer["prediction"] in (0, 1)
    assert json.dumps(sorted(answer["probabilities"])) == '["0", "1"]'


def run_main(serve, monkeypatch, *words):
    served = {}

    def run(app, **options):
        served.update(options, app=app)

    monkeypatch.setattr(serve.uvicorn, "run", run)
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *words])
    monkeypatch.setattr(serve.torch, "set_num_threads", lambda n: served.update(n=n))
    serve.main()
    return served


def test_a_saved_model_is_served_where_it_is_asked(serve, clf, monkeypatch, tmp_path):
    robustmm.save(clf, tmp_path / "model")
    words = [str(tmp_path / "model"), "--port", "9", "--host", "0.0.0.0"]
    served = run_main(serve, monkeypatch, *words, "--torch-threads", "3")
    assert (served["port"], served["host"], served["n"]) == (9, "0.0.0.0", 3)
    with TestClient(served["app"]) as client:
        assert client.post("/predict", json={"text": "a"}).status_code == 200


def test_the_demo_needs_no_model(serve, monkeypatch):
    small = make_scenes(40, random_state=0)
    monkeypatch.setattr(serve, "make_scenes", lambda n, random_state: small)
    served = run_main(serve, monkeypatch, "--demo")
    with TestClient(served["app"]) as client:
        assert len(client.post("/predict", json={}).json()["probabilities"]) == 6


def test_members_of_an_ensemble_are_bounded_too(serve, scenes):
    clf = robustmm.AutoMultimodalClassifier._small().fit(*scenes)
    with TestClient(serve.create_app(clf, max_pixels=100)) as client:
        answer = client.post("/predict", json={"text": scenes[0]["text"][0]})
        image = ("a.png", png(scenes[0]["image"][0]))
        refused = client.post("/upload", files={"image": image})
    assert answer.json()["prediction"] == expected(clf, None, scenes[0]["text"][0])[0]
    assert refused.status_code == 422
    assert "must have 1 to 100 pixels, got 64 x 64" in refused.json()["error"]
    probes = [m for _, m in clf.members_ if hasattr(m, "max_pixels")]
    assert [m for m in probes if m.max_pixels != 100 or m.cache is not None] == []


def test_a_pipeline_is_refused(serve, clf, monkeypatch, capsys):
    monkeypatch.setattr(serve.robustmm, "load", lambda *args: make_pipeline(clf))
    with pytest.raises(SystemExit) as stop:
        run_main(serve, monkeypatch, "model")
    assert stop.value.code == 2
    assert "must read images and texts alone" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["model", "--demo"]])
def test_a_model_or_the_demo(words, serve, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        run_main(serve, monkeypatch, *words)
    assert stop.value.code == 2
    assert "pass a MODEL, or --demo" in capsys.readouterr().err
