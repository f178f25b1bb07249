"""Pictures of play."""
