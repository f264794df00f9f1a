"""``AdaFocusTSM-v0``, as a single and as a vector environment: one patch position for a whole clip.

The rules are those of ``AdaFocus-v0``; only the spaces differ.
"""

from __future__ import annotations

from typing import Any, ClassVar

from gymnasium import spaces
from torch import Tensor

from adafocus_env.environments.env import AdaFocusEnv
from adafocus_env.environments.vector_env import AdaFocusVectorEnv
from adafocus_env.recognition.tsm_recognizer import TSMRecognizer


class AdaFocusTSMVectorEnv(AdaFocusVectorEnv):
    """Many episodes of ``AdaFocusTSM-v0`` at once; see :class:`adafocus_env.AdaFocusTSMEnv` for the environment itself.

    Made by ``gym.make_vec("AdaFocusTSM-v0", num_envs=64)``. Arguments and attributes are those of
    :class:`AdaFocusVectorEnv`, but for these.

    Args:
        num_envs: Lanes.
        action: ``"continuous"``, a position, or ``"grid"``, a patch index.
        recognizer: A :class:`TSMRecognizer`, a path or a shipped name; ``None`` is ``"roaming-motion"``.
        videos: As there, with the recogniser's two samplings; ``None`` is ``"roaming-motion"``.
        kwargs: As there. There are no ``skip``, ``stop``, ``looks`` and ``glance_cost``: there is one look at a clip,
            which is not skipped. ``skip_cost``, its price, is a number.

    Raises:
        TypeError: One of those four is given.
        ValueError: An argument is not allowed; the message names it and what is.
    """

    recognizer_class: ClassVar[type[TSMRecognizer]] = TSMRecognizer
    default_name: ClassVar[str] = "roaming-motion"

    def __init__(self, num_envs: int = 1, *, action: str = "continuous", **kwargs: Any) -> None:
        for name in kwargs.keys() & {"skip", "looks", "stop", "glance_cost"}:
            raise TypeError(f"AdaFocusTSM-v0 takes no argument {name!r}: there is one look at a clip, never skipped")
        if isinstance(kwargs.get("skip_cost"), (list, tuple)):
            raise ValueError("skip_cost must be a number in AdaFocusTSM-v0: the one look at a clip is paid in any case")
        super().__init__(num_envs, action=action, skip=False, **kwargs)

    def _spaces_beside_glance(self) -> dict[str, spaces.Space[Any]]:
        return {}

    def _observe_beside_glance(self) -> dict[str, Any]:
        return {}

    def _pictures(self, lanes: Tensor, time: Tensor) -> Tensor:
        """The frames that f_L reads of the clip."""
        assert isinstance(self.recognizer, TSMRecognizer)
        return self.recognizer.samplings(self._lanes.frames.units(lanes, time))[1]


class AdaFocusTSMEnv(AdaFocusEnv):
    """
    ## Description

    Where temporal order matters (Something-Something), both networks of the recogniser have temporal shift modules, and
    one patch position serves the whole clip: the global network glances at some of its frames, the agent decides once
    where to look, and the local network reads that patch of all the frames of a second sampling. The episode is a
    contextual bandit's: one step. From "Adaptive Focus for Efficient Video Recognition" (AdaFocus, ICCV 2021, Sec. 4.2,
    AdaFocus-TSM).

    By default the videos are those of ``RoamingMotion``, the embedded benchmark, in which the class is what the item
    does, and the recogniser is the one that ships with the package: no downloads, no GPU.

    ```python
    >>> import gymnasium as gym
    >>> env = gym.make("adafocus_env:AdaFocusTSM-v0", action="grid")
    >>> observation, info = env.reset(seed=0)
    >>> observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
    >>> terminated
    True

    ```

    ## Action Space

    With ``action="continuous"`` (the paper's), ``Box(-1, 1, (2,))``: row and column, −1 top or left, 1 bottom or right.
    The patch's top-left corner is floor((row + 1) / 2 · (H − P)), and likewise for the column. Positions off the grid
    are computed when they are asked for. With ``action="grid"``, ``Discrete(N)``: the candidates of ``AdaFocus-v0``,
    whose looks are remembered.

    ## Observation Space

    With ``observation="full"`` a ``Dict`` with one float32 ``Box``, ``glance``, (frames·C, h, w): the global network's
    maps of all its frames, stacked. With ``"glance"`` that ``Box`` alone.

    ## Rewards

    As of ``AdaFocus-v0``: r = p(chosen) − p(reference) − λ, p being the softmax confidence on the true label of the
    sum of both networks' logits. The reference is a random patch (`gain_over_random`), the global network's logits
    alone (`gain_over_previous`), an all-zero local vector (`gain_over_blank`), or nothing (`confidence`).

    ## Starting State

    A uniformly random clip of the split, of which only the glance is known. `reset(options={"video": i})` picks it.

    ## Episode End

    After one step. Never truncated.

    ## Information

    As of ``AdaFocus-v0``; `gflops` is the whole clip's.

    ## Arguments

    Those of ``AdaFocus-v0`` but `skip`, `stop`, `looks` and `glance_cost`; `skip_cost` is one number, 0 by default;
    `videos` and `recognizer` are `"roaming-motion"` by default; and

    | argument | default | meaning |
    |---|---|---|
    | `action` | `"continuous"` | or `"grid"` |

    ## Vectorized environment

    `gym.make_vec("AdaFocusTSM-v0", num_envs=64)`: see :class:`adafocus_env.AdaFocusTSMVectorEnv`.

    ## Version History

    * v0: first release

    The attributes are those of :class:`adafocus_env.AdaFocusEnv`; ``num_steps`` is 1, and ``num_frames`` counts the
    frames of both samplings.

    Raises:
        ValueError: An argument is not allowed; the message names it and what is.
    """

    vector_env_class = AdaFocusTSMVectorEnv
