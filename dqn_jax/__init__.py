"""Convergence speed of DQN agents: train, measure, compare."""
