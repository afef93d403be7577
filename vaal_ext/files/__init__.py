"""Files that are whole or not there, read with suspicion, and claimed by one process."""
