"""Sphinx: C{make docs} builds the pages with warnings as errors."""

from hoft import __version__

project = "hoft"
author = "The hoft contributors"
release = version = __version__

extensions: list[str] = []
exclude_patterns = ["_build"]
nitpicky = True
highlight_language = "text"

html_theme = "furo"
html_title = f"hoft {release}"
html_static_path = ["_static"]
html_css_files = ["hoft.css"]
html_copy_source = False
html_show_copyright = False
