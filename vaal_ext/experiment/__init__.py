"""One run of active learning: its settings, its rounds, its folder on disk."""
