"""Child processes: they end when the process that started them ends."""
