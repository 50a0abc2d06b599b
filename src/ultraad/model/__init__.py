"""A fitted model: made, kept, read again, used."""
