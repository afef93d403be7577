"""A pool: read in batches, run through the network, its scores."""
