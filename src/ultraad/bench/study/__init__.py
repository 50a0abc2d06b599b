"""What the rows of a folder say together."""
