"""The benchmark: a recipe in, a folder of rows out, a report from the folder; docs/bench.md.

recipe.py (what is compared) -> run/ (jobs, and the processes that run them) -> results.py (the folder of rows, row.py)
-> study/ (what the rows say together: statistics, tables, page; the comparison of two folders).
"""
