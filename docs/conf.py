"""How Sphinx builds the site: `make docs`, then open docs/_build/index.html."""

import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.path[:0] = [str(FOLDER), str(FOLDER.parent)]

from gpuconv.version import gpuconv_version

project = "gpuconv"
author = "The gpuconv authors"
copyright = author
version = release = gpuconv_version()

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "site_parts.docstrings",
    "site_parts.figures",
    "site_parts.mathml",
    "site_parts.repository",
    "site_parts.tables",
]
exclude_patterns = ["_build"]
smartquotes = False

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 4

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 60
add_module_names = True
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = f"gpuconv {version}"
html_static_path = ["static"]
html_css_files = ["own.css"]
html_copy_source = False
html_show_sphinx = False
html_show_search_summary = False  # it reads other pages, which a browser refuses for files
