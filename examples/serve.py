"""
Serve a model: a form for people, JSON for programs
===================================================

``python examples/serve.py MODEL`` answers for a model that ``robustmm.save`` or
``robustmm fit`` has written; ``--demo`` fits a small one on drawn scenes first. The
page at http://127.0.0.1:8000 takes a picture or none and a text or none. Programs send

* ``POST /predict``, JSON: ``{"image": BASE64 or null, "text": TEXT or null}``;
* ``POST /upload``, multipart: a file ``image`` and a field ``text``, either left out;
* ``GET /health``, which answers once the model is there.

What a stranger sends is bounded: bytes are counted while they are read, and pixels are
known from an image's header before it is decoded. Needs
``pip install "robustmm[serve]"``.
"""

import argparse
import base64
import binascii
import warnings
from collections.abc import Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from html import escape
from typing import Annotated

import anyio.to_thread
import numpy as np
import pandas as pd
import torch
import uvicorn
from fastapi import FastAPI, File, Form, HTTPException, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from sklearn.base import ClassifierMixin
from starlette.exceptions import HTTPException as StarletteHTTPException

import robustmm
from robustmm.datasets import make_scenes

MOST_CHARACTERS = 20_000
MOST_BARS = 12
# Nothing is fetched, run or framed, even if a text found a way past escape().
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "img-src data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Row(BaseModel):
    """What ``POST /predict`` reads."""

    model_config = ConfigDict(extra="forbid")
    image: str | None = None
    text: Annotated[str | None, Field(max_length=MOST_CHARACTERS)] = None


class Answer(BaseModel):
    """What both endpoints for programs return."""

    prediction: str | int | float | bool | list[str | int | float | bool]
    probabilities: dict[str, float]
    missing: list[str]


Picture = Annotated[UploadFile | None, File()]
Text = Annotated[str | None, Form(max_length=MOST_CHARACTERS)]


@dataclass
class Service:
    """A fitted classifier, asked about one row at a time, by any number of threads."""

    clf: ClassifierMixin

    def __post_init__(self):
        blank = self._frame(None, None)
        # Also a rehearsal: the first stranger need not wait for what is made once.
        self.several = np.ndim(self.clf.predict(blank)) == 2

    def answer(self, image: bytes | None, text: str | None) -> Answer:
        """Classify a row; an image that cannot be read is the sender's mistake."""
        try:
            (proba,) = self.clf.predict_proba(self._frame(image, text))
        except ValueError as error:
            # "1 image cells cannot be read: row 0: REASON. Pass on_bad_image=..."
            reason = str(error).rpartition("row 0: ")[2].partition(". Pass ")[0]
            raise HTTPException(422, f"image: {reason}") from error
        labels = [_plain(label) for label in self.clf.classes_]
        if self.several:
            prediction = [k for k, p in zip(labels, proba, strict=True) if p > 0.5]
        else:
            prediction = labels[proba.argmax()]
        absent = {"image": image is None, "text": not (text or "").strip()}
        return Answer(
            prediction=prediction,
            probabilities=dict(zip(map(str, labels), proba.tolist(), strict=True)),
            missing=[name for name, gone in absent.items() if gone],
        )

    def _frame(self, image: bytes | None, text: str | None) -> pd.DataFrame:
        # Bytes and never a str, which would be a path on this machine.
        cells = {self.clf.image_column: [image], self.clf.text_column: [text]}
        return pd.DataFrame(cells, dtype=object)


def _plain(label):
    """A label as JSON has it."""
    label = label.item() if isinstance(label, np.generic) else label
    return label if isinstance(label, str | int | float | bool) else str(label)


def read_base64(words: str | None) -> bytes | None:
    """Return the bytes of an image that was sent as text."""
    if not words:
        return None
    if words.startswith("data:"):
        words = words.partition(",")[2]
    try:
        return base64.b64decode(words, validate=True)
    except (binascii.Error, ValueError) as error:
        raise HTTPException(422, "image: must be base64") from error


def read_upload(file: UploadFile | None) -> bytes | None:
    """Return the bytes of a file; where none is chosen, browsers send an empty one."""
    if file is None or not (file.filename or file.size):
        return None
    return file.file.read()


class BodyLimit:
    """Count a request's bytes while they are read, and stop when there are too many."""

    def __init__(self, app, max_bytes: int):
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope, receive, send) -> None:
        size = 0

        async def counted() -> dict:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self.max_bytes:
                # Raised in whoever parses the body, and told as all other refusals.
                most = self.max_bytes / 2**20
                raise HTTPException(413, f"a request may have {most:g} MiB at most")
            return message

        await self.app(scope, counted, send)


def create_app(
    clf: ClassifierMixin,
    *,
    max_bytes: int = 8 * 2**20,
    max_pixels: int = 40_000_000,
    n_threads: int = 8,
) -> FastAPI:
    """Return the application around a fitted classifier.

    Parameters
    ----------
    clf : classifier of robustmm
        Its ``cache``, ``verbose``, ``on_bad_image`` and ``max_pixels`` are set, and
        those of its members, if it is an ensemble.
    max_bytes : int
        Longest body of a request.
    max_pixels : int
        Largest picture.
    n_threads : int
        Requests that are answered at a time; others wait.
    """
    options = {"cache": None, "verbose": 0, "on_bad_image": "raise"}
    options["max_pixels"] = max_pixels
    for part in [clf, *(member for _, member in getattr(clf, "members_", []))]:
        taken = part.get_params(deep=False)
        part.set_params(**{k: v for k, v in options.items() if k in taken})
    service = Service(clf)

    @asynccontextmanager
    async def lifespan(app):
        limiter = anyio.to_thread.current_default_thread_limiter()
        limiter.total_tokens = n_threads
        yield

    app = FastAPI(
        title=f"robustmm: {type(clf).__name__}",
        version=robustmm.__version__,
        lifespan=lifespan,
        # Its pages load scripts from elsewhere; the schema is at /openapi.json.
        docs_url=None,
        redoc_url=None,
    )
    app.add_middleware(BodyLimit, max_bytes=max_bytes)
    _add_errors(app, service)
    _add_pages(app, service)
    return app


def _add_pages(app: FastAPI, service: Service) -> None:
    # Plain functions, not coroutines: they run in the pool of threads, so that one
    # long forward pass does not keep the others waiting.
    @app.get("/health")
    def health() -> dict:
        return {"status": "ok", "model": type(service.clf).__name__}

    @app.post("/predict")
    def predict(row: Row) -> Answer:
        return service.answer(read_base64(row.image), row.text)

    @app.post("/upload")
    def upload(image: Picture = None, text: Text = None) -> Answer:
        return service.answer(read_upload(image), text)

    @app.get("/", response_class=HTMLResponse)
    def form() -> HTMLResponse:
        return page(service)

    @app.post("/", response_class=HTMLResponse)
    def classify(image: Picture = None, text: Text = None) -> HTMLResponse:
        data = read_upload(image)
        try:
            answer = service.answer(data, text)
        except HTTPException as error:
            # Here and not below: what was typed stays in the form.
            return page(service, text, _refusal(error.detail), error.status_code)
        return page(service, text, _result(answer, image.filename if data else None))


def _add_errors(app: FastAPI, service: Service) -> None:
    def refuse(request: Request, status: int, reason: str):
        if request.url.path == "/" and request.method == "POST":
            return page(service, result=_refusal(reason), status=status)
        return JSONResponse({"error": reason}, status)

    @app.exception_handler(StarletteHTTPException)
    def refused(request: Request, error: StarletteHTTPException):
        return refuse(request, error.status_code, str(error.detail))

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError):
        # What was sent is not sent back: it may be megabytes, or a script.
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part != "body")
        return refuse(request, 422, f"{place or 'body'}: {first['msg']}")


# %%
# The page: no script, nothing from elsewhere
# -------------------------------------------

STYLE = """
:root { color-scheme: light dark; --ink: #1b2430; --soft: #5b6775; --line: #d5dbe3;
  --paper: #f4f6f9; --card: #fff; --bar: #0072b2; --track: #e6ebf1; --warn: #8a4b00;
  --warn-back: #fff4e2; --bad: #a1141c; --bad-back: #fdecec; --on-bar: #fff; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6ebf1; --soft: #9fabba;
  --line: #333d4a; --paper: #12171d; --card: #1b222b; --bar: #56b4e9; --track: #2a333e;
  --warn: #ffca85; --warn-back: #3a2c14; --bad: #ffb3b3; --bad-back: #3f1d20;
  --on-bar: #0c141c; } }
* { box-sizing: border-box; }
body { margin: 0; padding: 2rem 1rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
main { max-width: 62rem; margin: auto; }
h1 { margin: 0; font-size: 1.6rem; } header p { margin: .25rem 0 1.5rem;
  color: var(--soft); }
.columns { display: grid; gap: 1.25rem; grid-template-columns: 1fr; }
@media (min-width: 52rem) { .columns { grid-template-columns: 1fr 1fr; } }
.card { padding: 1.25rem; background: var(--card); border: 1px solid var(--line);
  border-radius: .75rem; min-width: 0; }
label { display: block; font-weight: 600; margin-bottom: .35rem; }
label small { font-weight: 400; color: var(--soft); }
input[type=file], textarea { width: 100%; margin-bottom: 1rem; padding: .6rem;
  color: inherit; background: var(--paper); border: 1px solid var(--line);
  border-radius: .5rem; font: inherit; }
textarea { min-height: 8rem; resize: vertical; display: block; }
button { width: 100%; padding: .7rem; border: 0; border-radius: .5rem; cursor: pointer;
  background: var(--bar); color: var(--on-bar); font: inherit; font-weight: 600; }
:focus-visible { outline: 3px solid var(--bar); outline-offset: 2px; }
h2 { margin: 0 0 .75rem; font-size: 1.35rem; overflow-wrap: anywhere; }
.note, .error { margin: 0 0 1rem; padding: .6rem .8rem; border-radius: .5rem;
  overflow-wrap: anywhere; }
.note { background: var(--warn-back); color: var(--warn); }
.error { background: var(--bad-back); color: var(--bad); }
.bars { list-style: none; margin: 0; padding: 0; }
.bars li { display: grid; grid-template-columns: 1fr auto; gap: .1rem .75rem;
  margin-bottom: .6rem; } .bars span { overflow-wrap: anywhere; }
.bars b { font-weight: 600; font-variant-numeric: tabular-nums; }
.track { grid-column: 1 / -1; height: .55rem; border-radius: 1rem;
  background: var(--track); overflow: hidden; }
.track i { display: block; height: 100%; border-radius: 1rem; background: var(--bar); }
.soft { color: var(--soft); margin: 0; }
"""
FORM = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name}</title><style>{style}</style></head><body><main>
<header><h1>Picture and text</h1>
<p>{name} tells {n_classes} classes apart, from either or both.</p></header>
<div class="columns">
<form class="card" method="post" action="/#answer" enctype="multipart/form-data">
<label for="image">Picture <small>(may be left out)</small></label>
<input id="image" name="image" type="file" accept="image/*">
<label for="text">Text <small>(may be left out)</small></label>
<textarea id="text" name="text" maxlength="{most}">{text}</textarea>
<button>Classify</button></form>
<section class="card" id="answer" aria-live="polite">{result}</section>
</div></main></body></html>"""
WAITING = '<p class="soft">The answer will be here.</p>'


def page(
    service: Service, text: str | None = None, result: str = WAITING, status: int = 200
) -> HTMLResponse:
    """Return the form, with what was typed and what came of it."""
    html = FORM.format(
        name=escape(type(service.clf).__name__),
        style=STYLE,
        n_classes=len(service.clf.classes_),
        most=MOST_CHARACTERS,
        # The first line break inside a textarea is not shown: one for it to take.
        text="\n" + escape(text or ""),
        result=result,
    )
    return HTMLResponse(html, status, HEADERS)


def _refusal(reason: str) -> str:
    return f'<p class="error" role="alert">{escape(reason)}</p>'


def _result(answer: Answer, filename: str | None) -> str:
    """The answer as HTML: all that anyone else has written is escaped."""
    several = isinstance(answer.prediction, list)
    names = answer.prediction if several else [answer.prediction]
    title = ", ".join(map(str, names)) or "none of the labels"
    ranked = sorted(answer.probabilities.items(), key=lambda item: -item[1])
    bars = "".join(
        f"<li><span>{escape(name)}</span><b>{p:.1%}</b>"
        f'<div class="track"><i style="width:{100 * p:.1f}%"></i></div></li>'
        for name, p in ranked[:MOST_BARS]
    )
    more = len(ranked) - MOST_BARS
    rest = f'<p class="soft">and {more} more</p>' if more > 0 else ""
    seen = f'<p class="soft">From {escape(filename)}</p>' if filename else ""
    return (
        f"<h2>{escape(title)}</h2>{_note(answer.missing)}"
        f'<ul class="bars">{bars}</ul>{rest}{seen}'
    )


def _note(missing: Sequence[str]) -> str:
    said = {
        (): "",
        ("image",): "There was no picture: this is from the text alone.",
        ("text",): "There was no text: this is from the picture alone.",
        ("image", "text"): "There was neither: this is how frequent each class is.",
    }[tuple(missing)]
    return f'<p class="note">{said}</p>' if said else ""


# %%
# From the command line
# ---------------------


def demo_model() -> robustmm.LinearProbeClassifier:
    """Fit a small model on drawn scenes, some of which lack a cell."""
    X, y = make_scenes(800, random_state=0)
    X = robustmm.drop_modalities(X, 0.5, "both", random_state=0)
    clf = robustmm.LinearProbeClassifier("robustmm/tiny-clip", verbose=1)
    return clf.fit(X, y)


def main() -> None:
    """Read the arguments, open the model and serve."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument(
        "model", nargs="?", help="folder that robustmm.save has written"
    )
    parser.add_argument("--demo", action="store_true", help="fit a small model first")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=8, help="answers at a time")
    parser.add_argument("--torch-threads", type=int, default=1, help="of each answer")
    parser.add_argument("--max-megabytes", type=float, default=8, help="of a request")
    parser.add_argument("--max-megapixels", type=float, default=40, help="of an image")
    args = parser.parse_args()
    if args.demo == (args.model is not None):
        parser.error("pass a MODEL, or --demo")
    torch.set_num_threads(args.torch_threads)
    # The page and the JSON say it of the row that it concerns.
    warnings.filterwarnings("ignore", ".*rows have neither image nor text")
    clf = demo_model() if args.demo else robustmm.load(args.model, args.device)
    if not hasattr(clf, "image_column"):
        parser.error(
            f"MODEL must read images and texts alone, got {type(clf).__name__}"
        )
    app = create_app(
        clf,
        max_bytes=int(args.max_megabytes * 2**20),
        max_pixels=int(args.max_megapixels * 1e6),
        n_threads=args.threads,
    )
    # More connections than these are told to come back later (503).
    uvicorn.run(app, host=args.host, port=args.port, limit_concurrency=128)


if __name__ == "__main__":
    main()
