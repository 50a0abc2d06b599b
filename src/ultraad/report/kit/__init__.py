"""What both reports are made of: charts, tables, words, the page's environment and style."""
