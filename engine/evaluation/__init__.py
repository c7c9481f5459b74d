"""Predictions, and pure functions of them."""
