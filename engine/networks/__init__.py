"""Architectures, what they see, their weights and their features."""
