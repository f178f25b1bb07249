"""Speed, as measured by `dqn-jax benchmark`."""
