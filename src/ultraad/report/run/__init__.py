"""The page about one results folder."""
