"""Devices: graphs and copies that the host does not wait for, and how much memory there is."""
