"""A recogniser and its policy in one folder, and the model card beside them."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch
from stable_baselines3 import PPO

from adafocus_env import Recognizer, load_recognizer
from agents import Reinforce, evaluate, from_pretrained, load_pair, load_policy, save_pair
from agents.baselines import RandomPolicy
from agents.pairs import check_pair, load_policy_for
from agents.pretrained import CHECKPOINTS as POLICIES
from agents.sb3 import make_vec_env
from tests.conftest import make_tiny_recognizer

ROOT = Path(__file__).parent.parent
CARDS = ROOT / "docs" / "model_cards"


@pytest.fixture(scope="module")
def policy(recognizer: Recognizer, videos: Any) -> Reinforce:
    env = gym.make_vec("AdaFocus-v0", 4, recognizer=recognizer, videos=videos, grid=4, skip_cost=0.25)
    return Reinforce(env, use_belief=True, hidden_size=8, encoder_size=8)


def test_one_path_deploys_both(recognizer: Recognizer, policy: Reinforce, videos: Any, tmp_path: Path) -> None:
    folder = save_pair(tmp_path / "pair", recognizer, policy)
    loaded, decides = load_pair(folder)
    frames = videos.frames(torch.arange(6))
    first, second = recognizer.recognize(frames, policy), loaded.recognize(frames, decides)
    assert torch.equal(first.logits, second.logits)
    assert torch.equal(first.corners, second.corners)
    assert load_recognizer(str(folder)).fingerprint() == recognizer.fingerprint()
    found = evaluate(load_policy(folder), recognizer=str(folder), videos=videos)  # as scripts pass it
    assert (found.predictions[:6, -1] == first.logits[:, -1].argmax(dim=1).numpy()).all()


def test_the_card_says_what_is_known(recognizer: Recognizer, policy: Reinforce, tmp_path: Path) -> None:
    noted = recognizer.frozen()
    noted.metadata = {"training": "somehow"}
    metrics = {"accuracy": 0.51239, "num_videos": 12}
    save_pair(
        tmp_path, noted, policy, title="Mine", data="Twelve clips.", command="train it", metrics=metrics, limits="Dusk."
    )
    card = (tmp_path / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: adafocus-env\n")
    for said in ("# Mine", "Twelve clips.", "```bash\ntrain it\n```", "- training: somehow", "| accuracy | 0.5124 |",
                 "| num_videos | 12 |", "Dusk.", "trained on this recogniser", "`skip_cost=0.25`", "`Reinforce`",
                 recognizer.fingerprint(), "glance and belief", "10 classes", "patch of 24²"):  # fmt: skip
        assert said in card, said
    noted.classifier.fc.bias.add_(1)  # as stage 3 does
    save_pair(tmp_path, noted, policy)
    card = (tmp_path / "README.md").read_text()
    assert f"trained on another recogniser, `{recognizer.fingerprint()}`" in card
    assert card.count("Not stated") == 2  # data and metrics


@pytest.mark.parametrize("stop", [False, True])
def test_the_card_says_how_to_give_prices(stop: bool, recognizer: Recognizer, videos: Any, tmp_path: Path) -> None:
    drawn = {"skip_cost": (0.0, 0.05), "stop": stop}
    env = gym.make_vec("AdaFocus-v0", 1, recognizer=recognizer, videos=videos, grid=4, **drawn)
    save_pair(tmp_path, recognizer, Reinforce(env, hidden_size=8, encoder_size=8))
    card = (tmp_path / "README.md").read_text()
    assert ("price (`skip_cost`, `glance_cost`)" if stop else "price (`skip_cost`)") in card
    program = re.findall(r"```python\n(.*?)```", card, re.DOTALL)[0].replace("path/of/this/folder", str(tmp_path))
    scope: dict[str, Any] = {"frames": videos.frames(torch.arange(2))}
    exec(program, scope)
    assert scope["result"].logits.shape == (2, 4, 10)


def test_a_recogniser_is_used_with_its_own_policy(
    recognizer: Recognizer, policy: Reinforce, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = str(save_pair(tmp_path / "pair", recognizer, policy))
    name, loaded = load_policy_for(recognizer, folder, None)
    assert name == folder
    assert loaded.action_space == policy.action_space
    for source in (f"{folder}/recognizer.safetensors", str(tmp_path)):
        with pytest.raises(ValueError, match=r"no policy goes with .* with --policy"):
            load_policy_for(recognizer, source, None)
    assert load_policy_for(recognizer, folder, "center", 0)[0] == "center"
    with pytest.raises(ValueError, match="shows another belief and glance"):
        load_policy_for(recognizer, folder, "roaming-fashion")
    with pytest.warns(UserWarning, match="another network"):
        load_policy_for(make_tiny_recognizer(1), folder, None)
    monkeypatch.setattr("adafocus_env.weights.download", lambda repository, filename: Path(folder) / filename)
    assert load_policy_for(recognizer, "org/name", None)[0] == "org/name"


def test_shipped_recognisers_have_a_policy_that_skips_and_one_that_looks() -> None:
    shipped = load_recognizer("roaming-fashion")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        names = [load_policy_for(shipped, "roaming-fashion", None, skip=skip)[0] for skip in (True, False)]
    assert names == ["roaming-fashion-skip", "roaming-fashion"]


def test_only_what_is_surely_wrong_is_warned_of(recognizer: Recognizer, policy: Reinforce, tmp_path: Path) -> None:
    tuned = recognizer.frozen()
    tuned.local_cnn[0].weight.add_(0.1)  # type: ignore[operator, index, union-attr]
    unknown = Reinforce(gym.make_vec("AdaFocus-v0", 1, recognizer=recognizer), hidden_size=8, encoder_size=8)
    unknown.made_for = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for each, decides in ((recognizer, policy), (tuned, policy), (make_tiny_recognizer(1), unknown)):
            check_pair(each, decides)
    with pytest.warns(UserWarning, match="another network"):
        save_pair(tmp_path, make_tiny_recognizer(1), policy)
    with pytest.warns(UserWarning, match="another network"):
        load_pair(tmp_path)


def test_pairs_that_do_not_fit_are_refused(
    recognizer: Recognizer, policy: Reinforce, videos: Any, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="shows another belief"):
        save_pair(tmp_path, make_tiny_recognizer(hidden_size=12), policy)
    with pytest.raises(ValueError, match="shows another belief and glance"):
        save_pair(tmp_path, load_recognizer("roaming-fashion"), policy)
    random = RandomPolicy(gym.make("AdaFocus-v0", recognizer=recognizer))
    with pytest.raises(ValueError, match=r"own agents.*RandomPolicy"):
        save_pair(tmp_path, recognizer, random)  # type: ignore[arg-type]
    world = {"recognizer": recognizer, "videos": videos, "grid": 4}
    frozen = PPO("MultiInputPolicy", make_vec_env(2, skip=False, **world), n_steps=2, batch_size=4)
    over_it = Reinforce(gym.make_vec("AdaFocus-v0", 2, **world), patch_policy=frozen)
    with pytest.raises(ValueError, match=r"frozen patch policy in it is a PPO, .* own agents"):
        save_pair(tmp_path, recognizer, over_it)
    assert not list(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError, match="neither a file nor one of the shipped ones"):
        load_pair(tmp_path)


def test_shipped_names_are_pairs_too() -> None:
    for name in ("roaming-fashion", "roaming-motion", "still-fashion"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            recognizer, policy = load_pair(name)
        assert policy.made_for["recognizer"] == recognizer.fingerprint()


def test_every_shipped_file_has_a_card() -> None:
    cards = {path.stem: path.read_text() for path in CARDS.glob("*.md")}
    recognizers = ROOT / "adafocus_env" / "recognition" / "checkpoints"
    for path in (*recognizers.iterdir(), *POLICIES.iterdir()):
        card = cards[path.stem.removesuffix("-skip")]
        assert f"`{path.relative_to(ROOT)}`" in card, path
        for section in ("## Data", "## Training", "## Metrics", "## Limits"):
            assert section in card
    for name, card in cards.items():
        assert load_recognizer(name).fingerprint() in card
        assert f"{from_pretrained(name).num_timesteps:,}" in card
        for cited in re.findall(r"\]\((\.\./[^)#]+)", card):
            assert (CARDS / cited).exists(), cited
