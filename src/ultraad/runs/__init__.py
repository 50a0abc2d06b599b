"""The long jobs: predict many images into a folder, evaluate a model on a labelled data set."""
