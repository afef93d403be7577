"""Work on a device that the host does not wait for: CUDA graphs, and copies on another stream."""
