"""Sphinx: C{make docs} builds the pages with warnings as errors."""

from hoft import __version__

project = "hoft"
author = "The hoft contributors"
release = version = __version__

extensions: list[str] = []
exclude_patterns = ["_build"]
nitpicky = True
highlight_language = "text"

html_theme = "alabaster"
html_title = f"hoft {release}"
html_copy_source = False
html_show_copyright = False
html_theme_options = {
    "description": "HTTP over file transfer",
    "page_width": "72rem",
    "sidebar_width": "15rem",
    "fixed_sidebar": True,
    "font_family": "system-ui, sans-serif",
    "head_font_family": "system-ui, sans-serif",
}
html_sidebars = {"**": ["about.html", "searchbox.html", "navigation.html"]}
