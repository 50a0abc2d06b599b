"""One HTML page about one results folder: self-contained, opens from disk, made to be sent to a co-author.

read.py      the folder's files -> Results
numbers.py   metrics and rows -> rows of tables
charts.py    curves and scores -> inline SVG
gallery.py   which images are shown, by rule -> small inline pictures
page.py      all of it -> report.html, through page.html.j2 and style.css
"""

from ultraad.report.run.page import render

__all__ = ["render"]
