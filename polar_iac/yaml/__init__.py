"""YAML text to a tree in which every value knows its position, with every problem found."""
