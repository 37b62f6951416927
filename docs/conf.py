"""Sphinx configuration; what it computes from the package is in ``_extensions``."""

import sys
from pathlib import Path

import robustmm

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_extensions"))

from inventories import write_inventories  # noqa: E402

project = "robustmm"
author = "the robustmm developers"
copyright = f"2026, {author}"
version = release = robustmm.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.viewcode",
    "numpydoc",
    "myst_nb",  # for the tour, and for the results, which a script writes in Markdown
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "computed",
    "diagrams",
    "folded",
    "mathml",
    "measured",
    "reference",
    "tour",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "jupyter_execute", "generated/tables", "includes"]
exclude_patterns += ["auto_examples/*.ipynb"]  # to be downloaded; the pages are .rst
nb_execution_mode = "off"  # the extension `tour` has run it by then

# References -------------------------------------------------------------------------

autosummary_generate = True
smartquotes = False  # types and defaults are code
autodoc_typehints = "none"  # the numpydoc sections carry the types
numpydoc_show_class_members = False  # the class template lists them
maximum_signature_line_length = 70
toc_object_entries_show_parents = "hide"  # they stand in the title of the page
# A reference to one of our own names must resolve. Those of other projects lead to
# their pages if ``inventories.py`` knows them; no server is asked.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(numpy|pandas|PIL|sklearn|skorch|torch)\..*")]
intersphinx_mapping = write_inventories()

# Examples ---------------------------------------------------------------------------

# Downloads, long trainings and tables that are not here.
NOT_SHOWN = r"pretrain_|real_tables|reproduce|movie_posters|papers|__init__"
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"(?<!serve)\.py$",  # which would go on answering
    "ignore_pattern": NOT_SHOWN,
    "reset_argv": "gallery.reset_argv",
    "within_subsection_order": "gallery.reading_order",
    "backreferences_dir": "generated/backreferences",
    "doc_module": ("robustmm",),
    "reference_url": {"robustmm": None},
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "capture_repr": ("_repr_html_",),  # not what matplotlib's calls return
    "write_computation_times": False,
    "remove_config_comments": True,
    "nested_sections": False,
}

# Pages ------------------------------------------------------------------------------

html_theme = "pydata_sphinx_theme"
html_title = "robustmm"
html_static_path = ["_static"]
html_css_files = ["site.css", "tables.css"]
html_math_renderer = "mathml"  # see _extensions: browsers draw it, nothing is loaded
html_copy_source = False
html_show_sourcelink = False
html_sidebars = {"index": [], "results": [], "continual_results": []}
html_theme_options = {
    "navbar_align": "left",
    "header_links_before_dropdown": 6,
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "search_bar_text": "Search: a class, a word, a question",
    "navbar_end": ["version-switcher", "theme-switcher"],
    # A release adds its name and address to the file, and is named here as it is built.
    "switcher": {"json_url": "_static/versions.json", "version_match": "latest"},
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
}
# Neither prompts nor what is printed are part of what the button copies.
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
