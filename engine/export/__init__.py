"""A trained model taken away: as a graph, as a program, or as a script that trains it again."""
