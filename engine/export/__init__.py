"""A model, a script or a report, taken away."""
