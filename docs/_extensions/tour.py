"""The tour: a notebook without outputs, run when the site is built."""

import os
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from sphinx.errors import ExtensionError

SOURCE = Path(__file__).parents[2] / "examples" / "tour.ipynb"
PAGE = Path(__file__).parents[1] / "generated" / "tour.ipynb"


def run_tour(app) -> None:
    """Run the notebook, and put it where Sphinx finds pages; as it is, only once."""
    if PAGE.exists() and PAGE.stat().st_mtime > SOURCE.stat().st_mtime:
        return
    # Bars are texts here: as widgets they would need scripts from elsewhere.
    os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"
    notebook = nbformat.read(SOURCE, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            timeout=300,
            kernel_name="python3",
            coalesce_streams=True,  # of each bar only the last state
            resources={"metadata": {"path": folder}},
        )
        client.execute()
    PAGE.parent.mkdir(exist_ok=True)
    nbformat.write(notebook, PAGE)


def check_tour(app, exception) -> None:
    """Fail the build if the tour's bars or tables would not look as they should."""
    if exception is not None or app.builder.name != "html":
        return
    page = Path(app.outdir, "generated", "tour.html").read_text()
    wanted = ["100%|██████████|", 'class="dataframe"', "data:image/png"]
    unwanted = ["IProgress", "jupyter.widget", "Traceback", "\r"]
    wrong = [text for text in wanted if text not in page]
    wrong += [text for text in unwanted if text in page]
    if wrong:
        raise ExtensionError(f"The tour's page lacks, or has, {wrong}.")


def setup(app) -> dict:
    """Run the notebook before any page is read, and look at its page at the end."""
    app.connect("builder-inited", run_tour)
    app.connect("build-finished", check_tour)
    return {"parallel_read_safe": True}
