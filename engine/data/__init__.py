"""The catalogue of datasets, their arrays and splits."""
