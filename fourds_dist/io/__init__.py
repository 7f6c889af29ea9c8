"""Storage, text formats, terminals and installation commands; independent of learning."""
