"""The page's server: a project on disk, marks as append-only rows, and one worker that adapts and predicts."""
