"""Programs that others wrote, or write that way, on the environment without any glue.

They have an extra of their own: ``pip install -e .[clients]``, then ``pytest -m clients``.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.wrappers import FlattenObservation
from torch import Tensor, nn
from torch.distributions import Categorical

import adafocus_env  # noqa: F401 (registers AdaFocus-v0)
import agents

pytestmark = pytest.mark.clients


@pytest.mark.parametrize(
    ("env_id", "arguments", "steps"),
    [
        ("AdaFocus-v0", {}, 8),
        ("AdaFocus-v0", {"skip": False}, 8),
        ("AdaFocus-v0", {"observation": "glance"}, 8),
        ("AdaFocus-v0", {"skip": False, "action": "continuous"}, 8),
        ("GlanceFocus-v0", {"looks": 3}, 3),
    ],
)
def test_torchrl_checks_its_specs(env_id: str, arguments: dict[str, Any], steps: int) -> None:
    pytest.importorskip("torchrl")
    from torchrl.envs import GymEnv
    from torchrl.envs.utils import check_env_specs

    env = GymEnv(env_id, split="val", **arguments)
    check_env_specs(env)
    rollout = env.rollout(20)
    assert len(rollout) == steps  # it ends with the video
    assert bool(rollout["next", "terminated"][-1])


def test_tianshou_collects_and_trains() -> None:
    pytest.importorskip("tianshou")
    from tianshou.algorithm import DQN
    from tianshou.algorithm.modelfree.dqn import DiscreteQLearningPolicy
    from tianshou.algorithm.optim import AdamOptimizerFactory
    from tianshou.data import Collector, CollectStats, VectorReplayBuffer
    from tianshou.env import DummyVectorEnv
    from tianshou.trainer import OffPolicyTrainerParams
    from tianshou.utils.net.common import Net

    def make() -> gym.Env[Any, Any]:
        return gym.make("AdaFocus-v0", split="val", skip=False, observation="glance")

    seen, actions = make().observation_space, make().action_space
    net = Net(state_shape=seen.shape, action_shape=actions.n, hidden_sizes=[64])  # type: ignore[attr-defined]
    policy = DiscreteQLearningPolicy(model=net, action_space=actions, observation_space=seen, eps_training=0.2)
    algorithm = DQN(policy=policy, optim=AdamOptimizerFactory(lr=1e-3), gamma=0.7, target_update_freq=50)
    training = Collector[CollectStats](
        algorithm, DummyVectorEnv([make] * 4), VectorReplayBuffer(1000, 4), exploration_noise=True
    )
    settings = OffPolicyTrainerParams(
        training_collector=training, test_collector=Collector[CollectStats](algorithm, DummyVectorEnv([make])),
        max_epochs=1, epoch_num_steps=128, collection_step_num_env_steps=32, batch_size=32, test_step_num_episodes=2,
        verbose=False, show_progress=False,
    )  # fmt: skip
    result = algorithm.run_training(settings)
    assert (result.train_step, len(training.buffer)) == (128, 128)
    assert training.collect(n_episode=4).lens.tolist() == [8, 8, 8, 8]


def test_rllib_trains() -> None:
    """Beside the extra: it holds Gymnasium at one version (``pip install 'ray[rllib]'``)."""
    ray = pytest.importorskip("ray")
    ppo = pytest.importorskip("ray.rllib.algorithms.ppo", exc_type=ImportError)
    from ray.tune.registry import register_env

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        register_env("look", lambda config: FlattenObservation(gym.make("AdaFocus-v0", split="val", **config)))
        config = ppo.PPOConfig().environment("look", env_config={"skip": False})
        config = config.env_runners(num_env_runners=0, num_envs_per_env_runner=2)
        config = config.training(train_batch_size_per_learner=64, minibatch_size=32, num_epochs=1)
        result = config.build_algo().train()["env_runners"]
    finally:
        ray.shutdown()
    assert result["num_env_steps_sampled"] == 64
    assert result["episode_len_mean"] == 8


def play_and_record(name: str, choose: Any, episodes: int) -> list[list[tuple[Any, ...]]]:
    """Episodes of a data set that Minari writes, and what the environment itself said."""
    from minari import DataCollector

    env = DataCollector(gym.make("adafocus_env:AdaFocus-v0", split="val", skip=False), record_infos=False)
    said = []
    for episode in range(episodes):
        observation, _ = env.reset(seed=episode)
        steps: list[tuple[Any, ...]] = [(observation,)]
        state, over = None, False
        while not over:
            action, state = choose(env, observation, state)
            observation, reward, over, _, _ = env.step(action)
            steps.append((observation, action, reward))
        said.append(steps)
    env.create_dataset(dataset_id=f"adafocus/{name}-v0", algorithm_name=name)
    env.close()
    return said


@pytest.mark.parametrize("name", ["random", "learned"])
def test_minari_records_and_replays(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    minari = pytest.importorskip("minari")
    pytest.importorskip("h5py")
    pytest.importorskip("jax")  # with which Minari collects
    learned = agents.from_pretrained("roaming-fashion")

    def choose(env: Any, observation: Any, state: Any) -> tuple[int, Any]:
        if name == "random":
            return int(env.action_space.sample()), None
        batched = {key: value[None] for key, value in observation.items()}
        action, state = learned.predict(batched, state=state, deterministic=True)
        return int(action[0]), state

    said = play_and_record(name, choose, episodes=3)
    dataset = minari.load_dataset(f"adafocus/{name}-v0")
    assert dataset.total_episodes == 3
    assert dataset.total_steps == 24
    env = dataset.recover_environment()
    assert env.spec.id == "AdaFocus-v0"
    assert dataset.observation_space == env.observation_space
    assert dataset.action_space == env.action_space
    for number, (episode, steps) in enumerate(zip(dataset.iterate_episodes(), said, strict=True)):
        observation, _ = env.reset(seed=number)
        for time, action in enumerate([None, *episode.actions]):
            if action is not None:
                observation, reward, over, _, _ = env.step(action)
                assert (action, reward) == steps[time][1:]
                assert episode.rewards[time - 1] == pytest.approx(reward, abs=1e-6)
                assert episode.terminations[time - 1] == over == (time == 8)
            for key, value in observation.items():
                np.testing.assert_array_equal(episode.observations[key][time], value)
                np.testing.assert_array_equal(steps[time][0][key], value)


def test_rl_zoo_trains_and_evaluates(tmp_path: Path) -> None:
    pytest.importorskip("rl_zoo3")
    (tmp_path / "ppo.yml").write_text(
        "AdaFocus-v0:\n  n_envs: 2\n  n_timesteps: 128\n  policy: MultiInputPolicy\n  n_steps: 16\n  batch_size: 32\n"
    )
    command = (
        "-m rl_zoo3.train --algo ppo --env AdaFocus-v0 --gym-packages adafocus_env --conf-file ppo.yml "
        "--log-folder logs --env-kwargs skip:False split:'val' --eval-freq 32 --eval-episodes 2 --n-eval-envs 1"
    )
    subprocess.run([sys.executable, *command.split()], cwd=tmp_path, check=True, timeout=300)
    run = tmp_path / "logs" / "ppo" / "AdaFocus-v0_1"
    assert (run / "AdaFocus-v0.zip").is_file()
    lengths = np.load(run / "evaluations.npz")["ep_lengths"]
    assert len(lengths) >= 2
    assert (lengths == 8).all()


class Agent(nn.Module):
    """CleanRL's shape: one network, ``get_action_and_value``."""

    def __init__(self, envs: Any) -> None:
        super().__init__()
        size = int(np.prod(envs.single_observation_space.shape))
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(size, 256), nn.Tanh(), nn.Linear(256, 128), nn.Tanh())
        space = envs.single_action_space
        self.sizes = list(map(int, space.nvec)) if isinstance(space, gym.spaces.MultiDiscrete) else [int(space.n)]
        self.actor, self.critic = nn.Linear(128, sum(self.sizes)), nn.Linear(128, 1)
        nn.init.orthogonal_(self.actor.weight, 0.01)

    def get_action_and_value(self, x: Tensor, action: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        features = self.body(x)
        probs = [Categorical(logits=logits) for logits in self.actor(features).split(self.sizes, dim=1)]
        action = torch.stack([each.sample() for each in probs], dim=1) if action is None else action
        parts = list(zip(probs, action.unbind(dim=1), strict=True))
        log_prob, entropy = sum(each.log_prob(a) for each, a in parts), sum(each.entropy() for each in probs)
        return action, log_prob, entropy, self.critic(features)[:, 0]  # type: ignore[return-value]


@pytest.mark.parametrize("stop", [False, True], ids=["where", "when to stop too"])
def test_a_loop_in_cleanrls_manner_learns(stop: bool) -> None:
    """Where to look, or, at prices that no look is worth, to stop at once."""
    num_envs, num_steps, gamma, gae_lambda = 32, 16, 0.5, 0.95
    decisions: dict[str, Any] = {"skip": stop, "stop": stop}
    if stop:
        decisions |= {"reward": "gain_over_previous", "skip_cost": 0.1, "glance_cost": 0.1}
    envs = gym.make_vec("AdaFocus-v0", num_envs=num_envs, observation="glance", autoreset_mode="SAME_STEP", **decisions)
    torch.manual_seed(0)
    agent = Agent(envs)
    optimizer = torch.optim.Adam(agent.parameters(), lr=1e-3, eps=1e-5)
    next_obs, _ = envs.reset(seed=0)
    next_obs, next_done = torch.as_tensor(next_obs), torch.zeros(num_envs)
    mean_rewards, together = [], True
    for _ in range(160):
        kept: list[tuple[Tensor, ...]] = []
        for _ in range(num_steps):
            with torch.no_grad():
                action, logprob, _, value = agent.get_action_and_value(next_obs)
            obs, done = next_obs, next_done
            raw, reward, terminations, truncations, _ = envs.step(action.numpy() if stop else action[:, 0].numpy())
            together &= bool(terminations.all()) or not terminations.any()
            next_obs, next_done = torch.as_tensor(raw), torch.as_tensor(terminations | truncations).float()
            kept.append((obs, action, logprob, value, torch.as_tensor(reward), done))
        obs, actions, logprobs, values, rewards, dones = (torch.stack(part) for part in zip(*kept, strict=True))
        with torch.no_grad():
            next_value = agent.get_action_and_value(next_obs)[3]
            advantages, last = torch.zeros_like(rewards), torch.zeros(num_envs)
            for t in reversed(range(num_steps)):
                ended = next_done if t == num_steps - 1 else dones[t + 1]
                after = next_value if t == num_steps - 1 else values[t + 1]
                delta = rewards[t] + gamma * after * (1 - ended) - values[t]
                advantages[t] = last = delta + gamma * gae_lambda * (1 - ended) * last
        batch = [part.flatten(0, 1) for part in (obs, actions, logprobs, advantages, advantages + values)]
        for _ in range(4):
            for index in torch.randperm(num_envs * num_steps).split(128):
                b_obs, b_actions, b_logprobs, b_advantages, b_returns = (part[index] for part in batch)
                _, newlogprob, entropy, newvalue = agent.get_action_and_value(b_obs, b_actions)
                ratio = (newlogprob - b_logprobs).exp()
                b_advantages = (b_advantages - b_advantages.mean()) / (b_advantages.std() + 1e-8)
                pg_loss = torch.max(-b_advantages * ratio, -b_advantages * ratio.clamp(0.8, 1.2)).mean()
                loss = pg_loss - 0.01 * entropy.mean() + 0.5 * (newvalue - b_returns).square().mean()
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
                optimizer.step()
        mean_rewards.append(float(rewards.mean()))
    envs.close()
    first, last_ones = np.mean(mean_rewards[:10]), np.mean(mean_rewards[-10:])
    assert last_ones > first + 0.01  # of the 0.02 that a learned policy gains on a frame, or of the prices
    assert together != stop  # lanes that stop end at different steps
