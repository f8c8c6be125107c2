"""Sphinx: the pages of this folder and the docstrings of the package. `make docs` builds them; warnings are errors."""

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent / "_ext")]  # datasets and train are used from a checkout

project = "pyg_cgconv"
author = "the developers of pyg_cgconv"
copyright = f"2026, {author}"
version = release = installed_version("pyg-cgconv")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.doctest",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "mathml",
    "short_names",
]
exclude_patterns = ["_build"]
nitpicky = True
# Other projects' classes, of which these pages know no address: they are named, not linked.
nitpick_ignore_regex = [
    (r"py:.*", r"(torch|torch_geometric|e3nn|o3|ase|numpy|np|nn|pathlib|collections)\..*"),
    (r"py:class", r"(Tensor|Data|Batch|Path|EdgeIndex|MessagePassing|BaseTransform|Calculator|Module|InMemoryDataset)"),
    (r"py:(attr|exc)", r"(irreps_out|PropertyNotImplementedError)"),
    (r"py:class", r"pyg_cgconv\.potential\._atoms\.Atoms"),
    (r"py:class", r"(Atoms|Callable|Sequence|Mapping|Collated|Frames|optional|ndarray|ClassVar|Molecules)"),
]

# === text ===
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

# === docstrings ===
autodoc_typehints = "none"  # types stand in the signature's words: Args say what a value is
autodoc_member_order = "bysource"
autosummary_generate = False
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = ["Shapes"]
python_maximum_signature_line_length = 90

# === examples: run by `make docs`, see contributing.md ===
doctest_test_doctest_blocks = ""  # examples in docstrings are shown, those in the pages are run
doctest_global_setup = """
import os, tempfile, torch
folder, checkout = tempfile.TemporaryDirectory(), os.getcwd()
os.chdir(folder.name)
torch.manual_seed(0)
torch.set_num_threads(1)
"""
doctest_global_cleanup = "os.chdir(checkout); folder.cleanup()"

# === pages ===
html_theme = "furo"
html_title = "pyg_cgconv"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
pygments_style = "friendly"
pygments_dark_style = "monokai"
copybutton_exclude = ".linenos, .gp, .go"
