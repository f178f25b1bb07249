"""The five DQN tutorials this project grew out of, each reproduced by one command over many seeds."""
