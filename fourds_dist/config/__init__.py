"""Configuration: sections, loading, and what each key affects."""
