"""A person's own pictures, made into a dataset."""
