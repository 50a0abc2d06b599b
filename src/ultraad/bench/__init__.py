"""The benchmark: a recipe in, a folder of rows out; docs/bench.md.

recipe.py (what is compared) -> data.py, jobs.py (independent jobs) -> local.py or ray.py (who runs them) ->
work.py, measure.py (one job) -> results.py (the folder). protocol.py: what counts as honest.

The folder -> draws.py, statistics.py (what the rows say together) -> content.py, breakdown.py (tables), figures.py,
mosaic.py (pictures), card.py (sentences) -> report.py (page and tables.py). compare.py: two folders.
"""
