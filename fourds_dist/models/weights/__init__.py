"""Files of weights: reading, matching of names, and metadata."""
