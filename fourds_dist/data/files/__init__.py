"""Image files on disk: kinds of files, splits by name, truncation, duplicates."""
