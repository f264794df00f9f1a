"""``GlanceFocus-v0``, as a single and as a vector environment: several looks at one still picture.

The rules are those of ``AdaFocus-v0``; a picture is a video of one frame, which is looked at more than once.
"""

from __future__ import annotations

from typing import Any, ClassVar

from adafocus_env.environments.env import AdaFocusEnv
from adafocus_env.environments.vector_env import AdaFocusVectorEnv

DEFAULT_LOOKS = 5


class GlanceFocusVectorEnv(AdaFocusVectorEnv):
    """Many episodes of ``GlanceFocus-v0`` at once; see :class:`adafocus_env.GlanceFocusEnv` for the environment itself.

    Made by ``gym.make_vec("GlanceFocus-v0", num_envs=64)``. Arguments and attributes are those of
    :class:`AdaFocusVectorEnv`, but for these.

    Args:
        num_envs: Lanes.
        looks: T, looks at a picture.
        skip: Whether the action carries a skip bit.
        recognizer: A :class:`Recognizer`, a path or a shipped name; ``None`` is ``"still-fashion"``.
        videos: A data set whose videos have one frame; ``None`` is ``"still-fashion"``.
        kwargs: As there.

    Raises:
        ValueError: An argument is not allowed; the message names it and what is.
    """

    default_name: ClassVar[str] = "still-fashion"

    def __init__(self, num_envs: int = 1, *, looks: int = DEFAULT_LOOKS, skip: bool = False, **kwargs: Any) -> None:
        super().__init__(num_envs, looks=looks, skip=skip, **kwargs)
        if self.num_frames != 1:
            raise ValueError(
                f"GlanceFocus-v0 looks at pictures, and these videos have {self.num_frames} frames: take AdaFocus-v0"
            )


class GlanceFocusEnv(AdaFocusEnv):
    """
    ## Description

    The same process on still pictures, which is where AdaFocus comes from. The global network glances at a picture
    once, and the agent then chooses patches one after the other. After each of them the recurrent classifier
    knows more, and the agent is paid in confidence on the picture's true label. After "Glance and Focus: a Dynamic
    Approach to Reducing Spatial Redundancy in Image Classification" (GFNet, NeurIPS 2020); here the networks are those
    of AdaFocus, trained as in its stages, but on several random patches of a picture in stage 1.

    By default the pictures are single scenes of ``RoamingFashion``, and the recogniser is the one that ships with the
    package: no downloads, no GPU.

    ```python
    >>> import gymnasium as gym
    >>> env = gym.make("adafocus_env:GlanceFocus-v0", looks=3)
    >>> observation, info = env.reset(seed=0)
    >>> for _ in range(3):
    ...     observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
    >>> terminated
    True

    ```

    ## Action Space

    As of ``AdaFocus-v0``, but without skip bit by default: ``Discrete(N)``; ``MultiDiscrete([N, 2])`` with `skip=True`,
    where a skipped look leaves everything as it was; ``Box(-1, 1, (2,))`` with `action="continuous"`.

    ## Observation Space

    As of ``AdaFocus-v0``. `glance` is the same in all steps of an episode; `belief` says what was found so far.

    ## Rewards, Information

    As of ``AdaFocus-v0``. `gflops` counts the global network in the first step only.

    ## Starting State

    A uniformly random picture of the split. `reset(options={"video": i})` picks it.

    ## Episode End

    After T looks, or where the agent stops. Never truncated.

    ## Arguments

    Those of ``AdaFocus-v0``, with `videos` and `recognizer` `"still-fashion"` and `skip` `False` by default, and

    | argument | default | meaning |
    |---|---|---|
    | `looks` | `5` | T, looks at a picture |

    ## Vectorized environment

    `gym.make_vec("GlanceFocus-v0", num_envs=64)`: see :class:`adafocus_env.GlanceFocusVectorEnv`.

    ## Version History

    * v0: first release

    The attributes are those of :class:`adafocus_env.AdaFocusEnv`; ``num_frames`` is 1, ``num_steps`` is T.

    Raises:
        ValueError: An argument is not allowed; the message names it and what is.
    """

    vector_env_class = GlanceFocusVectorEnv
