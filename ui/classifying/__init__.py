"""Classifying pictures that a person brings: how they come in, and what is said of them."""
