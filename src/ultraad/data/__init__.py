"""What is on disk: data layouts, the few-shot draw, checks, and loading."""
