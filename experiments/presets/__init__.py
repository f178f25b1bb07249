"""The presets, measured on held-out seeds."""
