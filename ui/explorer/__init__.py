"""The views of a dataset on the Explore page: one module a view."""
