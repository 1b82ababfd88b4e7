"""Several runs side by side: curves, tables and files, `python -m rtune.compare`."""
