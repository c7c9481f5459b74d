"""The views of the Gallery page: the images behind the figures."""
