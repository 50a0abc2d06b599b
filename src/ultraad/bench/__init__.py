"""The benchmark: a recipe in, a folder of rows out; docs/bench.md.

recipe.py (what is compared) -> data.py, jobs.py (independent jobs) -> local.py or ray.py (who runs them) ->
work.py, measure.py (one job) -> results.py (the folder). protocol.py: what counts as honest.
"""
