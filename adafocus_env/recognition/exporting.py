"""Export of a recogniser and its policy as graphs that run without this package; see ``exported.py`` for these."""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.distributions import Distribution

from adafocus_env.checks import Bounds, check_choice, check_integer
from adafocus_env.files import write_atomically
from adafocus_env.patches import grid_of
from adafocus_env.recognition.deployment import refuse_skips
from adafocus_env.recognition.exported import FORMAT, GRAPHS
from adafocus_env.recognition.image_networks import ImageNetworks

Graphs = Literal["pt2", "onnx"]
"""Kind of graphs, and suffix of their files: those of torch.export, or ONNX."""
_SEEN = {"glance", "belief", "time"}
_EXAMPLES = 3


def export_graphs(
    recognizer: ImageNetworks[Any],
    folder: str | os.PathLike[str],
    policy: Any,
    looks: int,
    graphs: Graphs,
    clip: tuple[int, int] | None = None,
) -> Path:
    """See :meth:`adafocus_env.Recognizer.export` and, for ``clip``, its frames for f_G and for f_L,
    :meth:`adafocus_env.TSMRecognizer.export`."""
    check_choice("graphs", graphs, get_args(Graphs))
    looks = check_integer("looks", looks, Bounds(at_least=1))
    _check_policy(policy, recognizer.glance_shape)
    if clip is not None:
        refuse_skips(policy)
    _check_devices({"recognizer": [recognizer], "policy": policy.networks})
    config, classifier = recognizer.config, recognizer.classifier
    gates, belief = (torch.zeros(_EXAMPLES, size) for size in (classifier.gates_size, classifier.hidden_size))
    seen = torch.zeros(_EXAMPLES, *recognizer.glance_shape), belief, torch.zeros(_EXAMPLES, 1)
    glanced, read = ((), ()) if clip is None else (clip[:1], clip[1:])
    decide = _Decide(policy, *seen)
    skipped = torch.zeros(_EXAMPLES, dtype=torch.bool)
    modules: dict[str, tuple[nn.Module, tuple[Tensor, ...]]] = {
        "glance": (_Glance(recognizer), (_pictures(*glanced, side=config.glance_size),)),
        "decide": (decide, (*seen, *decide.states)),
        "look": (_Look(recognizer), (_pictures(*read, side=config.patch_size),)),
        "classify": (_Classify(recognizer), (gates, gates.clone(), skipped, belief)),  # one tensor would be one input
    }
    folder = Path(folder)
    for name in GRAPHS:
        write_atomically(folder / f"{name}.{graphs}", _graph(*modules[name], graphs))
    settings = {
        "format": FORMAT,
        "graphs": graphs,
        "glance_size": config.glance_size,
        "glance_interpolation": config.glance_interpolation,
        "patch_size": config.patch_size,
        "hidden_size": classifier.hidden_size,
        "num_classes": config.num_classes,
        "grid": grid_of(policy.action_space),
        "looks": looks,
        "clip": clip,
        "states": [list(state.shape[1:]) for state in decide.states],
    }
    write_atomically(folder / "settings.json", json.dumps(settings, indent=2).encode())
    write_atomically(folder / "exported.py", Path(__file__).with_name("exported.py").read_bytes())
    return folder


def _pictures(*frames: int, side: int) -> Tensor:
    return torch.zeros(_EXAMPLES, *frames, 3, side, side, dtype=torch.uint8)


def _check_policy(policy: Any, glance_shape: tuple[int, ...]) -> None:
    """Raise ``ValueError`` unless a policy decides by networks alone, from what the exported graphs compute."""
    if not getattr(policy, "takes_tensors", False) or not hasattr(policy, "networks"):
        raise ValueError(
            f"policy must decide by torch networks alone, as this package's own agents and released policies do, and a "
            f"{type(policy).__name__} doesn't, or the frozen policy in it"
        )
    space = policy.observation_space
    if isinstance(space, spaces.Dict) and (more := sorted(space.keys() - _SEEN)):
        raise ValueError(
            f"the policy sees {more} beside {sorted(_SEEN)}: it can't be exported; train one at a fixed "
            "skip_cost (and glance_cost)"
        )
    glance = space["glance"] if isinstance(space, spaces.Dict) else space
    if glance.shape != glance_shape:
        raise ValueError(
            f"the policy sees glances of shape {glance.shape}, but the recogniser's are {glance_shape}: export the one "
            "that it was trained with"
        )


def _check_devices(networks: Mapping[str, Sequence[nn.Module]]) -> None:
    """Raise ``ValueError`` unless all networks, by argument, are on the CPU, as the examples of the graphs are."""
    for name, several in networks.items():
        devices = {parameter.device.type for network in several for parameter in network.parameters()}
        if elsewhere := sorted(devices - {"cpu"}):
            raise ValueError(
                f"{name} must be on the CPU to be exported, not on {elsewhere[0]}: load it with device='cpu'"
            )


class _Glance(nn.Module):
    def __init__(self, recognizer: ImageNetworks[Any]) -> None:
        super().__init__()
        self.recognizer = recognizer

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        maps, vectors = self.recognizer.glance(frames)
        return maps, self.recognizer.classifier.project_global(vectors)


class _Look(nn.Module):
    def __init__(self, recognizer: ImageNetworks[Any]) -> None:
        super().__init__()
        self.recognizer = recognizer

    def forward(self, patches: Tensor) -> tuple[Tensor, ...]:
        return (self.recognizer.classifier.project_local(self.recognizer.look(patches)),)


class _Classify(nn.Module):
    def __init__(self, recognizer: ImageNetworks[Any]) -> None:
        super().__init__()
        self.classifier = recognizer.classifier

    def forward(self, frame_gates: Tensor, patch_gates: Tensor, skipped: Tensor, belief: Tensor) -> tuple[Tensor, ...]:
        context = self.classifier.context(frame_gates.clone(), belief)  # which writes into the gates, as advance does
        after = self.classifier.advance(patch_gates.clone(), context)
        after = torch.where(skipped[:, None], belief, after)
        return self.classifier.predict(after), after


class _Decide(nn.Module):
    """One step of a policy, whose recurrent state, however it is nested, becomes a flat list of tensors.

    Attributes:
        states: Those tensors, for a batch of examples.
    """

    def __init__(self, policy: Any, glance: Tensor, belief: Tensor, time: Tensor) -> None:
        super().__init__()
        self.policy_networks = nn.ModuleList(policy.networks)  # so that their weights are known as such
        self._policy = [policy]  # a list hides it from torch if it is itself a network
        self._sees_glance_alone = isinstance(policy.observation_space, spaces.Box)
        _, self._nested = policy.predict(self._observed(glance, belief, time), deterministic=True)
        self.states = list(_tensors_in(self._nested))

    def _observed(self, glance: Tensor, belief: Tensor, time: Tensor) -> Any:
        return glance if self._sees_glance_alone else {"glance": glance, "belief": belief, "time": time}

    def forward(self, glance: Tensor, belief: Tensor, time: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        state = _refilled(self._nested, iter(states))
        action, state = self._policy[0].predict(self._observed(glance, belief, time), state, deterministic=True)
        return action, *_tensors_in(state)


def _tensors_in(state: Any) -> Iterator[Tensor]:
    """The tensors of a policy's state, in order."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, Mapping):
        for part in state.values():
            yield from _tensors_in(part)
    elif isinstance(state, Sequence):
        for part in state:
            yield from _tensors_in(part)


def _refilled(state: Any, tensors: Iterator[Tensor]) -> Any:
    """A policy's state with other tensors in place of its own."""
    if isinstance(state, Tensor):
        return next(tensors)
    if isinstance(state, Mapping):
        return {name: _refilled(part, tensors) for name, part in state.items()}
    if isinstance(state, Sequence):
        return type(state)(_refilled(part, tensors) for part in state)  # type: ignore[call-arg]
    return state


def _graph(module: nn.Module, examples: tuple[Tensor, ...], graphs: Graphs) -> bytes:
    """A module as a graph for batches of any size, as the bytes of its file."""
    batch = torch.export.Dim("batch", min=1)
    names = list(inspect.signature(module.forward).parameters.values())
    dynamic: dict[str, Any] = {}
    for number, parameter in enumerate(names[: len(examples)]):  # a policy without states leaves their name out
        several = parameter.kind is inspect.Parameter.VAR_POSITIONAL
        dynamic[parameter.name] = tuple({0: batch} for _ in examples[number:]) if several else {0: batch}
    with torch.no_grad(), _quiet():
        program = torch.export.export(module.eval(), examples, dynamic_shapes=dynamic)
        if graphs == "pt2":
            data = io.BytesIO()
            torch.export.save(program, data)
            return data.getvalue()
        converted = torch.onnx.export(program, dynamo=True, verbose=False)
        assert converted is not None
        return converted.model_proto.SerializeToString()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without checks of distributions' parameters, which would become part of a graph, and without torch's warnings of
    what doesn't matter here."""
    checked = Distribution._validate_args
    Distribution.set_default_validate_args(False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        Distribution.set_default_validate_args(checked)
