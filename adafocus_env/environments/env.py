"""``AdaFocus-v0`` as a single environment: one lane of the vector environment."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from torch import Tensor

from adafocus_env.environments.outputs import first_lane_info, one_lane
from adafocus_env.environments.vector_env import AdaFocusVectorEnv
from adafocus_env.features.frozen_features import FrozenFeatures
from adafocus_env.videos.dataset import VideoDataset

_OF_THE_LANE = (
    *("render_mode", "num_frames", "num_steps", "frame_size", "patch_size", "num_patches", "num_classes"),
    *("videos", "recognizer", "corners", "features", "grid", "looks", "skip_cost", "glance_cost"),
)
"""Attributes that a single environment shares with its lane."""
_OF_MANY_LANES = {"autoreset_mode", "num_envs", "output"}
"""Arguments that only a vector environment takes."""


class AdaFocusEnv(gym.Env[Any, Any]):
    """
    ## Description

    A video recogniser has a cheap global network that glances at every frame, a costly local network that reads one
    small patch of it, and a recurrent classifier that gathers the evidence. The recogniser is trained and frozen: it
    *is* the environment. The agent decides, frame by frame, where the local network looks, and, with ``skip=True``,
    whether it looks at all. It is paid in confidence on the video's true label. From "Adaptive Focus for Efficient
    Video Recognition" (AdaFocus, ICCV 2021, Sec. 3.3, stage 2).

    By default the videos are those of ``RoamingFashion``, the embedded benchmark, and the recogniser is the one that
    ships with the package: no downloads, no GPU.

    ```python
    >>> import gymnasium as gym
    >>> env = gym.make("adafocus_env:AdaFocus-v0")  # or "AdaFocus-v0" after import adafocus_env
    >>> observation, info = env.reset(seed=0)
    >>> observation, reward, terminated, truncated, info = env.step(env.action_space.sample())

    ```

    ## Action Space

    With ``skip=True``, ``MultiDiscrete([N, 2])``: patch index and skip bit (1 = don't run the local network on this
    frame). With ``skip=False``, ``Discrete(N)``. Patch index k is row k // g, column k % g of a g×g grid of top-left
    corners (floor(row / (g − 1) · (H − P)), floor(column / (g − 1) · (W − P))).

    With ``stop=True``, ``MultiDiscrete([N, 3])``: the second component is 0, look, 1, skip, or 2, stop. Stopping ends
    the episode before the current frame is read; the classifier's prediction stands as it is.

    With ``action="continuous"``, which needs ``skip=False``, ``Box(-1, 1, (2,))``: row and column, −1 top or left, 1
    bottom or right. The corner is floor((row + 1) / 2 · (H − P)), and likewise for the column. Patches at such
    positions are not remembered: the local network runs whenever they are asked for.

    ## Observation Space

    With ``observation="full"`` a ``Dict`` of float32 ``Box`` es; with ``"glance"``, the paper's state, the first alone:

    | key | shape | meaning |
    |---|---|---|
    | `glance` | (C, h, w) | the global network's map of the current frame (after the last step: of the last frame) |
    | `belief` | (D,) | the classifier's hidden state before the current frame |
    | `time` | (1,) | t / T |
    | `price` | (1,), or (2,) with `stop=True` | λ, and the price of going on, each as (p − 0.015) / (p + 0.015); only \
where prices are drawn |

    ## Rewards

    r = focused · (p(chosen) − p(reference) − λ), where p is the softmax confidence on the true label after this frame,
    and everything starts from the same hidden state; 0 on a skipped frame. Where the agent can stop, every decision
    that leads to another step also costs `glance_cost`: the price of one more glance and one more step of policy and
    classifier. With `gain_over_previous` the return is then the confidence at the end, minus that at the start, minus
    the price of all compute that decisions can save. The reference is what `reward` names:

    | reward | reference |
    |---|---|
    | `gain_over_random` | a random patch, found as `baseline` says |
    | `gain_over_previous` | the confidence before this frame, which is also what skipping would give |
    | `gain_over_blank` | an all-zero local vector |
    | `confidence` | nothing: 0 |
    | `log_odds_over_random` | a random patch; p is replaced by log(p / (1 − p)), and λ is in log-odds |

    ## Transition

    A focused frame advances the classifier with its global vector and the chosen patch's local vector. A skipped frame
    leaves the classifier's state and prediction as they were (our choice: the paper is silent, and the code of
    AdaFocus+ is unreleased).

    ## Starting State

    The classifier's zero state before the first frame of a uniformly random video of the split.
    `reset(options={"video": i})` picks the video. Every random draw is a function of (seed, episode, step).

    With `skip_cost=(low, high)`, and likewise `glance_cost`, an episode also starts with a price of its own, drawn so
    that what `price` shows of it is uniform; `reset(options={"skip_cost": 0.02})` sets it. One policy can then learn to
    act by every price. `skip_cost=(0.02, 0.02)` shows a price that doesn't change.

    ## Episode End

    The episode terminates after the last of the video's T frames, or where the agent stops. It is never truncated.

    ## Information

    `reset` gives `video` (index) and `label`, and `skip_cost` and `glance_cost` where prices are drawn. `step` adds
    `prediction`, `confidence` (on the label, after this step), `baseline_confidence` (the reference's; 0 where there is
    none and on skipped frames), `patch` (top, left, size, in pixels), `skipped`, and `gflops`: multiply-adds / 1e9 of
    the global network and the classifier, and of the local network on focused frames. The last step adds `is_success`
    and `video_gflops`, and with `stop=True` also `stopped` and `frames`, the number of frames glanced at. With
    `baseline="exact"` and a reward whose reference is a random patch, `step` also gives `candidate_rewards`, (N,): what
    every candidate would have earned on this frame, 0 where it was skipped; the price of going on is not taken off.

    ## Arguments

    | argument | default | meaning |
    |---|---|---|
    | `split` | `"train"` | `"recognizer"`, `"train"`, `"val"` or `"test"`, for videos given by name; \
    the embedded ones also have `"final"`, for published figures alone |
    | `videos` | `None` | a registered name, or a data set object, taken as it is; `None` is `"roaming-fashion"` |
    | `recognizer` | `None` | a `Recognizer`, a path or a shipped name; `None` is `"roaming-fashion"` |
    | `grid` | `7` | g: candidates form a g×g grid, N = g² |
    | `action` | `"grid"` | patch indices, or `"continuous"` positions |
    | `looks` | `1` | steps about each frame, which is glanced at once |
    | `skip` | `True` | whether the action carries a skip bit (AdaFocus+) |
    | `stop` | `False` | whether an action can end the episode; needs `skip` |
    | `glance_cost` | `0.0` | price of going on to the next step, in confidence; needs `stop`; or (low, high) |
    | `skip_cost` | `None` | λ ≥ 0, price of a focused frame in confidence; `None`: 0 without skip bit, else 0.015; \
or (low, high) |
    | `reward` | `"gain_over_random"` | a name as above, or an object with the members of `rewards.Reward` |
    | `baseline` | `"sample"` | the random patch: one uniform candidate (`"sample"`), the mean over all candidates \
(`"exact"`, no variance), or one uniform pixel position (`"pixel"`, as the reference code) |
    | `observation` | `"full"` | or `"glance"` |
    | `render_mode` | `None` | `"rgb_array"` or `"human"` |
    | `device` | `"cpu"` | torch device of the recogniser and its table |
    | `features` | `None` | a `FeatureBank` (say, in a file) or `FrozenFeatures` (remembers nothing) in place of \
`videos`, `recognizer`, `grid` and `device`; `None` is a bank in memory |

    ## Vectorized environment

    `gym.make_vec("AdaFocus-v0", num_envs=64)` steps 64 episodes in one batch, and takes `autoreset_mode` and
    `output` (`"numpy"` or `"torch"`) besides: see :class:`adafocus_env.AdaFocusVectorEnv`. Lane i of a vector
    environment seeded s behaves as this environment seeded s + i.

    ## Memory

    What the recogniser says is kept in a table that fills where it is asked for, one per recogniser and data set in the
    process: at most 4.3 GB on the default `train` split (every candidate of every frame seen);
    `env.unwrapped.features.filled_bytes()` says how much now.

    ## Copies

    An environment pickles and deep-copies at any time, in mid-episode too, and the copy steps on as the original would:
    same observations, rewards, infos and draws. The table goes by reference: within the process both read the same one,
    and agree to the last bit. A pickle that is loaded in another process (a spawned worker, a restored checkpoint)
    opens a table's file again, or fills a new one in memory as it goes; what networks say in batches of another make-up
    may then differ by rounding, about 1e-6.

    ## Version History

    * v0: first release

    Attributes:
        num_frames: T, frames of a video.
        num_steps: Steps per episode: as many as there are looks at all frames.
        frame_size: (H, W), pixels.
        patch_size: P, pixels.
        num_patches: N.
        num_classes: Number of classes.

    Raises:
        FileNotFoundError: A description of videos, or what it names, is missing.
        MemoryError: The table of these videos could grow beyond the memory.
        TypeError: There is no such argument.
        ValueError: An argument is not allowed, or there are no weights of that name; the message names it and what is.
    """

    metadata: dict[str, Any] = dict(AdaFocusVectorEnv.metadata)  # noqa: RUF012

    vector_env_class: ClassVar[type[AdaFocusVectorEnv]] = AdaFocusVectorEnv

    def __init__(self, **arguments: Any) -> None:
        if of_many := sorted(_OF_MANY_LANES & arguments.keys()):
            raise TypeError(f"{of_many[0]} is an argument of gym.make_vec, not of gym.make: leave it out")
        lane = self.vector_env_class(1, **arguments, autoreset_mode=AutoresetMode.DISABLED, output="numpy")
        lane._alone = True
        self._lane = lane
        self.observation_space, self.action_space = lane.single_observation_space, lane.single_action_space
        self._read_lane()

    def _read_lane(self) -> None:
        for name in _OF_THE_LANE:
            setattr(self, name, getattr(self._lane, name))

    def __getstate__(self) -> dict[str, Any]:
        """For ``pickle`` and ``copy.deepcopy``: see :meth:`AdaFocusVectorEnv.__getstate__`."""
        return {name: value for name, value in vars(self).items() if name not in _OF_THE_LANE}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._read_lane()

    videos: VideoDataset
    recognizer: Any
    features: FrozenFeatures
    grid: int
    num_frames: int
    num_steps: int
    frame_size: tuple[int, int]
    patch_size: int
    num_patches: int
    num_classes: int
    corners: Tensor

    @property
    def current_videos(self) -> Tensor:
        """(1,) int64, the video of this episode."""
        return self._lane.current_videos

    @property
    def current_frames(self) -> Tensor:
        """(1,) int64, the frame that the next action is about; T after the last."""
        return self._lane.current_frames

    @property
    def current_steps(self) -> Tensor:
        """(1,) int64, steps taken in this episode."""
        return self._lane.current_steps

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode: see the class for its starting state and ``options``.

        Raises:
            ValueError: A seed or an option is not allowed.
        """
        observation, info = self._lane.reset(seed=seed, options=options)  # which checks both
        super().reset(seed=None if seed is None else int(seed))
        return one_lane(observation, 0), first_lane_info(info)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Look at one frame, or skip it.

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset or after the end of the episode.
            ValueError: An action outside the action space.
        """
        observation, reward, terminated, truncated, info = self._lane.step(
            action[None] if isinstance(action, Tensor) else [action]
        )
        over = bool(terminated[0]), bool(truncated[0])
        return one_lane(observation, 0), float(reward[0]), *over, first_lane_info(info)

    def render(self) -> np.ndarray | None:
        """Draw the frame that was acted on last, (height, width, 3) uint8; ``"human"`` mode shows it, returns None."""
        pictures = self._lane.render()
        return None if pictures is None else pictures[0]

    def close(self) -> None:
        """Close the window of ``"human"`` mode."""
        self._lane.close()
