"""Files on disk: written whole or not at all, checked when read, and locked by one process."""
