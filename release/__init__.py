"""``python -m release``: wheel and sdist, checked as a stranger would use them. Not part of the package."""
