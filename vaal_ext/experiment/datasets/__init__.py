"""Data by name or by path: labelled sets with their splits, and pools of samples alone."""
