"""Finished runs compared: curves, statistics, tables, pictures."""
