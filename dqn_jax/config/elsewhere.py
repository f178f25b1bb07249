"""What other code bases (CleanRL, Stable-Baselines3, Dopamine, papers) call our settings."""

from __future__ import annotations

ELSEWHERE = {
    "learning_rate": "lr alpha step_size stepsize",
    "discount": "gamma discount_factor",
    "epsilon_start": "epsilon eps exploration_initial_eps start_e eps_start initial_epsilon",
    "epsilon_end": "epsilon eps exploration_final_eps end_e eps_end epsilon_train final_epsilon epsilon_min",
    "epsilon_decay_steps": "epsilon eps exploration_fraction epsilon_decay_period eps_decay exploration_steps",
    "eval_epsilon": "epsilon_eval",
    "batch_size": "batch minibatch",
    "replay_capacity": "buffer buffer_size replay_size memory_size memory buffer_capacity replay_buffer_size",
    "min_replay": "learning_starts min_replay_history replay_start_size learn_start warmup warmup_steps",
    "target_mixing": "tau polyak",
    "target_period": "target_update target_update_interval target_update_period target_network_frequency "
    "target_update_freq target_update_frequency",
    "num_envs": "n_envs envs num_environments n_env num_env",
    "train_every": "train_freq train_frequency update_period update_every update_frequency",
    "updates_per_train": "gradient_steps utd replay_ratio num_epochs epochs update_epochs",
    "rollout_length": "num_steps n_steps",
    "trace_decay": "lambda td_lambda q_lambda lam",
    "total_steps": "total_timesteps timesteps steps n_timesteps num_steps n_steps max_steps num_timesteps frames",
    "total_episodes": "episodes num_episodes n_episodes",
    "eval_every": "eval_freq eval_frequency eval_interval",
    "eval_episodes": "n_eval_episodes num_eval_episodes",
    "hidden": "net_arch layers hidden_sizes hidden_size hidden_layers units mlp",
    "torso": "network policy features_extractor",
    "n_step": "nstep update_horizon multi_step",
    "double": "ddqn double_q double_dqn",
    "frame_stack": "stack stack_size framestack",
    "action_repeat": "frameskip frame_skip",
    "sticky_actions": "sticky repeat_action_probability",
    "reward_clip": "clip_rewards clip_reward reward_clipping",
    "optimizer_eps": "adam_eps adam_epsilon eps_adam",
    "optimizer": "optim optimizer_class optimiser",
    "max_grad_norm": "grad_clip gradient_clip clip_grad clip_grad_norm clip_norm",
    "max_episode_steps": "max_episode_length time_limit horizon",
    "huber_delta": "delta",
    "noisy": "noisy_net noisy_nets noisynet noisy_layers noisy_linear",
    "noisy_sigma": "sigma sigma_0 sigma0 sigma_init std_init",
    "temperature": "softmax_temperature boltzmann_temperature",
    "env": "env_id environment env_name game task",
    "env_params": "env_kwargs",
    "seeds": "num_seeds n_seeds runs",
    "out": "output log_dir logdir output_dir out_dir dir",
    "max_minutes": "minutes time",
}


def meant_by(name: str) -> list[str]:
    """Our settings that go by `name` elsewhere."""
    name = name.lower().replace("-", "_")
    return [ours for ours, theirs in ELSEWHERE.items() if name in theirs.split()]
