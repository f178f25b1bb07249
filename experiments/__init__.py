"""Experiments: one short file per question, with its recorded result beside it."""
