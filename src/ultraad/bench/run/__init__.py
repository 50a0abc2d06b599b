"""Run a recipe into a folder of rows."""
