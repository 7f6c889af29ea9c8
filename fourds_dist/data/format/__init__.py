"""Format of a dataset folder: manifest, index, class list."""
