"""What the site adds to Sphinx: formulas, docstrings and tables made from the package."""
