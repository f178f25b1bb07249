"""Sweeps that ask how fast agents converge, and what changes that."""
