"""The recipe, its fields, and the figures of the backbones."""
