"""Atari from pixels."""
