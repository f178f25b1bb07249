"""Agents at work: the loops of a lane, populations of lanes, evaluation."""
