"""The built site in a browser: it fits, it asks nobody, and its search finds things.

Not part of the default run: ``pytest -n 0 -m site`` behind a build of the site. Where
only some pages were built anew, Sphinx forgets the index entries of the others, which
the search looks at: remove ``docs/_build`` first.
"""

import functools
import http.server
import inspect
import re
import shutil
import threading
from pathlib import Path

import pytest
from test_public_api import CLASSIFIERS, PUBLIC

pytestmark = pytest.mark.site
PROJECT = Path(__file__).parents[1]
BUILD = PROJECT / "docs" / "_build"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
WIDTHS = (1280, 390)
# The words of whoever has a question, and the page that should answer.
WORDS = {
    "tabular": "getting_started",
    "deploy": "serving",
    "GPU": "devices",
    "which method": "which_method",
    "which encoder": "encoders",
    "tune": "tuning",
    "serve": "serving",
    "NaN": "missing_cells",
    "CSV": "getting_started",
    "deployment": "serving",
    "memory": "scale",
}
TOO_WIDE = """() => {
    const page = document.documentElement;
    if (page.scrollWidth <= innerWidth) return [];
    const wide = [...document.querySelectorAll('body *')].filter(
        e => e.getBoundingClientRect().right > innerWidth + 1);
    return wide.slice(-1).map(e => e.tagName + '.' + e.className).concat(
        [`${page.scrollWidth} > ${innerWidth}`]);
}"""
FIND = """query => {
    const [text, terms, excluded, marked, objects] = Search._parseQuery(query);
    const found = Search._performSearch(text, terms, excluded, marked, objects);
    return found.reverse().map(result => result[0]);
}"""


class Silent(http.server.SimpleHTTPRequestHandler):
    """A server of files that does not write what it is asked."""

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def site():
    if not (BUILD / "index.html").is_file():
        pytest.skip("needs the built site: sphinx-build docs docs/_build")
    handler = functools.partial(Silent, directory=BUILD)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("needs chromium on the PATH")
    reason = "needs playwright, which drives chromium"
    api = pytest.importorskip("playwright.sync_api", reason=reason)
    with api.sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu"]
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield chromium
        chromium.close()


def pages() -> list[str]:
    """The built pages, by address."""
    found = BUILD.rglob("*.html")
    names = [file.relative_to(BUILD).as_posix() for file in found]
    return sorted(name for name in names if not name.startswith("_static/"))


def test_no_page_is_too_wide_or_asks_another_machine(site, browser):
    too_wide, asked, loud = [], [], []
    page = browser.new_page(color_scheme="light")
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: loud.append(f"{page.url}: {error}"))
    assert {"index.html", "faq.html", "search.html"} <= set(pages())
    for name in pages():
        page.goto(site + name, wait_until="load")
        for scheme in ("light", "dark"):
            page.evaluate(
                "scheme => document.documentElement.dataset.theme = scheme", scheme
            )
            for width in WIDTHS:
                page.set_viewport_size({"width": width, "height": 844})
                if wide := page.evaluate(TOO_WIDE):
                    too_wide.append((name, scheme, width, *wide))
    page.close()
    assert too_wide == []
    assert [url for url in asked if not url.startswith((site, "data:"))] == []
    assert loud == []


def test_no_page_shows_the_key_of_a_citation(site):
    texts = {name: (BUILD / name).read_text() for name in pages()}
    key = re.compile(r"\[R[0-9a-f]{6,}-\d+\]")
    assert [name for name, text in texts.items() if key.search(text)] == []


def test_text_can_be_read_in_both_schemes(site, browser):
    for scheme, darker in (("light", False), ("dark", True)):
        page = browser.new_page(color_scheme=scheme)
        page.goto(site + "which_method.html")
        colours = page.evaluate(
            """() => ['color', 'backgroundColor'].map(name =>
                getComputedStyle(document.body)[name])"""
        )
        text, ground = (sum(map(int, re.findall(r"\d+", c)[:3])) for c in colours)
        assert (ground < text) is darker
        assert abs(ground - text) > 3 * 100
        page.close()


def test_what_is_copied_has_no_prompts(site, browser):
    context = browser.new_context()
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=site)
    page = context.new_page()
    page.goto(site + "getting_started.html")
    buttons = page.locator("button.copybtn")
    assert buttons.count() > 5
    copied = []
    for i in range(buttons.count()):
        buttons.nth(i).dispatch_event("click")
        page.wait_for_timeout(50)
        copied.append(page.evaluate("navigator.clipboard.readText()"))
    context.close()
    assert [text for text in copied if ">>>" in text or "..." in text] == []
    assert any("train_test_split(table" in text for text in copied)
    assert not any("['image', 'text', 'label']" in text for text in copied)


@pytest.fixture(scope="module")
def find(site, browser):
    page = browser.new_page()
    page.goto(site + "search.html")
    page.wait_for_function("Search.hasIndex()")
    yield lambda query: page.evaluate(FIND, query)
    page.close()


@pytest.mark.parametrize("words", WORDS)
def test_the_search_finds_the_page_for_a_question(find, words):
    found = find(words)
    assert WORDS[words] in found[:5]


def test_the_search_does_not_find_what_is_not_there(find):
    assert find("zyxwvut") == []


def test_the_search_finds_every_public_name(find):
    words = {name: name.rpartition(".")[2] for name in PUBLIC}
    # The last word alone is rather looked for among the methods of classifiers.
    words["distributed.predict"] = "distributed predict"
    pages_of = {name: find(word) for name, word in words.items()}
    wanted = {name: f"generated/robustmm.{name}" for name in PUBLIC}
    lost = {n: p[:3] for n, p in pages_of.items() if wanted[n] not in p[:5]}
    assert lost == {}


def test_every_parameter_of_a_classifier_has_a_row_with_its_default(site, browser):
    page = browser.new_page()
    page.goto(site + "generated/robustmm.MAILClassifier.html")
    rows = page.locator("dl.field-list dl dt:has(span.default) > strong")
    names = rows.all_inner_texts()
    page.close()
    assert names == list(inspect.signature(CLASSIFIERS["MAILClassifier"]).parameters)
