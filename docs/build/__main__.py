"""``python -m docs.build``: write every generated page."""

from docs.build import pages

for page, text in pages():
    page.write_text(text, encoding="utf-8")
