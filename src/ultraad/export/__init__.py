"""Write a model for other runtimes; :mod:`ultraad.model.exported` reads it without torch."""
