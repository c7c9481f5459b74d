"""Loupe's library and command line: datasets, recipes, runs and predictions. Knows nothing of the pages."""
