"""How Sphinx builds the documentation: from this folder, the docstrings and the notebooks as they are kept; offline."""

import shutil
from pathlib import Path
from typing import Any

import sphinx_autosummary_accessors

import xmrcae

HERE = Path(__file__).parent

# Notebooks lie outside of this folder, where Sphinx does not look; the copies are ignored by git.
# `copy2` keeps the times, so a second build reads only those that have changed.
shutil.rmtree(HERE / "notebooks", ignore_errors=True)
(HERE / "notebooks").mkdir()
for notebook in (HERE.parent / "notebooks").glob("*.ipynb"):
    shutil.copy2(notebook, HERE / "notebooks")

project = "xmrcae"
author = "The xmrcae developers"
copyright = author
version = release = xmrcae.__version__

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "sphinx_autosummary_accessors",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "_templates"]
templates_path = ["_templates", sphinx_autosummary_accessors.templates_path]

html_theme = "furo"
html_title = f"xmrcae {version}"

nb_execution_mode = "off"
myst_heading_anchors = 3
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

autosummary_generate = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
# xarray's, numpy's and others' names are not looked up: that would need the network.
nitpick_ignore_regex = [("py:.*", r"(xarray|numpy|matplotlib|pathlib|dask|torch)\..*")]


def rewrite(app: Any, document: str, source: list[str]) -> None:
    """Point links, which are written for readers of the repository, at the pages that are built."""
    text = source[0].replace("](../notebooks/", "](notebooks/")
    source[0] = text.replace("](../../notebooks/", "](../notebooks/")


def setup(app: Any) -> None:
    app.connect("source-read", rewrite)
