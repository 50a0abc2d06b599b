"""HTML pages, each one file that opens from disk and can be sent to a co-author.

kit/    what every page uses: words, tables, charts, pictures, style, template environment
run/    the page about one run
        read.py      the folder's files -> RunData
        numbers.py   metrics and rows -> rows of tables
        charts.py    curves and scores -> inline SVG
        gallery.py   which images are shown, by rule -> small inline pictures
        page.py      all of it -> report.html, through page.html.j2
"""

from ultraad.report.run.page import render

__all__ = ["render"]
