"""Rules that say which environment a policy, a recogniser or an id belongs to, and with which arguments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gymnasium import spaces

from adafocus_env import AdaFocusTSMVectorEnv, AdaFocusVectorEnv, GlanceFocusVectorEnv, TSMRecognizer, load_recognizer
from adafocus_env.checks import brief
from adafocus_env.environments.glance_env import DEFAULT_LOOKS
from adafocus_env.patches import can_stop, grid_of
from adafocus_env.prices import PRICE_NAMES, check_price, num_prices

VECTOR_ENVS: dict[str, type[AdaFocusVectorEnv]] = {
    "AdaFocus-v0": AdaFocusVectorEnv,
    "AdaFocusTSM-v0": AdaFocusTSMVectorEnv,
    "GlanceFocus-v0": GlanceFocusVectorEnv,
}


def vector_env_class(env_id: str | None, env_kwargs: Mapping[str, Any], policy: Any = None) -> type[AdaFocusVectorEnv]:
    """The vector environment of an id; without an id, that of the recogniser, or else that of the policy.

    Args:
        env_id: ``"AdaFocus-v0"``, ``"AdaFocusTSM-v0"``, ``"GlanceFocus-v0"`` or ``None``.
        env_kwargs: As in ``gym.make``; only ``features`` and ``recognizer`` matter.
        policy: A policy, or ``None``; one that acts in positions and sees no belief belongs to AdaFocus-TSM.

    Raises:
        ValueError: The id is unknown.
    """
    if env_id is not None:
        if env_id not in VECTOR_ENVS:
            raise ValueError(f"env_id must be one of {sorted(VECTOR_ENVS)}, not {env_id!r}")
        return VECTOR_ENVS[env_id]
    features, recognizer = env_kwargs.get("features"), env_kwargs.get("recognizer")
    if features is not None:
        recognizer = getattr(features, "recognizer", None)  # the environment itself checks the features
    if recognizer is None:
        of_clips = acts_in_positions(policy) and "belief" not in observed_shapes(
            getattr(policy, "observation_space", None)
        )
        return AdaFocusTSMVectorEnv if of_clips else AdaFocusVectorEnv
    if not hasattr(recognizer, "cost"):
        recognizer = load_recognizer(recognizer)
    return AdaFocusTSMVectorEnv if isinstance(recognizer, TSMRecognizer) else AdaFocusVectorEnv


def patches_alone(kind: type[AdaFocusVectorEnv]) -> dict[str, Any]:
    """Arguments that make an environment's actions patch indices, without a skip bit."""
    return {"action": "grid"} if issubclass(kind, AdaFocusTSMVectorEnv) else {"skip": False}


def shipped_pair(recognizer: str, kind: type[AdaFocusVectorEnv]) -> tuple[str, int]:
    """Name of the videos, and number of looks at each frame, that go with a recogniser unless others are asked for.

    Args:
        recognizer: A shipped name, or a path.
        kind: Its environment.
    """
    if recognizer == GlanceFocusVectorEnv.default_name:
        return recognizer, DEFAULT_LOOKS
    return kind.default_name, 1


def look_arguments(kind: type[AdaFocusVectorEnv], looks: int) -> dict[str, Any]:
    """Arguments of an environment for so many looks at each frame; none for AdaFocus-TSM, which has no such argument.

    Raises:
        ValueError: AdaFocus-TSM is to look more than once.
    """
    if not issubclass(kind, AdaFocusTSMVectorEnv):
        return {"looks": looks}
    if looks != 1:
        raise ValueError(f"looks must be 1, not {looks}: AdaFocusTSM-v0 looks at a clip once")
    return {}


def is_policy(policy: Any) -> bool:
    """Whether this is a policy itself, and not a callable that makes one."""
    return hasattr(policy, "predict") and not isinstance(policy, type)


def acts_in_positions(policy: Any) -> bool:
    """Whether a policy's actions are continuous positions."""
    return isinstance(getattr(policy, "action_space", None), spaces.Box)


def check_fit(policy: Any, env: AdaFocusVectorEnv) -> None:
    """Raise ``ValueError`` unless a policy can act in an environment."""
    if not is_policy(policy) or not hasattr(policy, "action_space"):
        raise ValueError(
            f"policy must have SB3's predict and an action_space, or be a callable that takes the environment and "
            f"returns what has; this is {brief(policy)}"
        )
    if policy.action_space != env.single_action_space:
        raise ValueError(
            f"the policy acts in {policy.action_space}, but the environment takes {env.single_action_space}: "
            "pass the `skip` (or `action`) and `grid` that it was trained with"
        )
    seen, shown = (
        observed_shapes(each) for each in (getattr(policy, "observation_space", None), env.single_observation_space)
    )
    if not seen.items() <= shown.items():
        raise ValueError(
            f"the policy sees {seen}, but the environment shows {shown}: pass the `observation` and `recognizer` that "
            "it was trained with"
        )
    check_bound(policy, env)


def check_bound(policy: Any, env: Any) -> None:
    """Raise ``ValueError`` if a policy, or the frozen one inside it, reads another environment than this one."""
    parts: tuple[Any, ...] = policy, getattr(policy, "patch_policy", None)
    for part in parts:
        if getattr(part, "bound", False) and part.env is not env.unwrapped:
            raise ValueError(
                f"{type(part).__name__} reads the environment that it was made with, and this is another: make it with "
                "this one; to evaluate it, pass the class, or a function that takes the environment and makes it"
            )


def observed_shapes(space: spaces.Space[Any] | None) -> dict[str, Any]:
    """Shapes of an observation's parts by name; empty for a policy that doesn't say what it sees."""
    if space is None:
        return {}
    return (
        {name: part.shape for name, part in space.items()}
        if isinstance(space, spaces.Dict)
        else {"glance": space.shape}
    )


def fitting_arguments(policy: Any, kind: type[AdaFocusVectorEnv], env_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The given arguments of an environment, completed by those that a policy's spaces imply: ``skip`` or ``action``,
    ``observation``, and ``grid`` unless ``features`` bring theirs. To a policy that sees prices, they are shown.

    Raises:
        ValueError: The policy sees prices, and one of them is not given.
    """
    if not is_policy(policy):
        return dict(env_kwargs)
    space = policy.action_space
    arguments: dict[str, Any] = {"action": "continuous" if acts_in_positions(policy) else "grid"}
    if not issubclass(kind, AdaFocusTSMVectorEnv):
        arguments["skip"] = isinstance(space, spaces.MultiDiscrete)
        arguments["stop"] = can_stop(space)
    if env_kwargs.get("features") is None and (grid := grid_of(space)) is not None:
        arguments["grid"] = grid
    if isinstance(getattr(policy, "observation_space", None), spaces.Box):
        arguments["observation"] = "glance"
    return {**arguments, **env_kwargs, **_shown_prices(policy, env_kwargs)}


def given_prices(policies: Iterable[Any], **prices: float | None) -> dict[str, float]:
    """The prices that were given for policies which act by them, as arguments of an environment.

    Args:
        policies: Policies, or callables that make one.
        prices: By their names in :data:`~adafocus_env.prices.PRICE_NAMES`; ``None`` where none was given.

    Raises:
        ValueError: A price was given that no policy sees.
    """
    found = {name: price for name, price in prices.items() if price is not None}
    seen = PRICE_NAMES[: max(map(num_prices, policies), default=0)]
    if unseen := sorted(found.keys() - {*seen}):
        raise ValueError(
            f"{' and '.join(unseen)}: no policy here acts by it, as none was trained for many prices: leave it out"
        )
    return found


def _shown_prices(policy: Any, env_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The prices that a policy sees, as an environment's arguments that show them."""
    shown: dict[str, Any] = {}
    for name in PRICE_NAMES[: num_prices(policy)]:
        if env_kwargs.get(name) is None:
            raise ValueError(
                f"the policy acts by the price of compute, and {name} is missing: pass {name}=0.02, say, for the price "
                f"that it is to act by, or {name}=(low, high)"
            )
        price = check_price(name, env_kwargs[name])
        shown[name] = price if isinstance(price, tuple) else (price, price)
    return shown
