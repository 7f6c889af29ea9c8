"""Sources of images: folders, lists, and published datasets by name."""
