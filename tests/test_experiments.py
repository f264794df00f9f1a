"""The runner of comparisons, on a tiny benchmark."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from joblib.externals.loky import get_reusable_executor
from matplotlib.figure import Figure

from adafocus_env import AdaFocusVectorEnv, FeatureBank, Recognizer
from adafocus_env.patches import can_stop
from adafocus_env.run_folder import check_settings
from adafocus_env.videos.description import open_description
from adafocus_env.videos.registry import register_videos
from agents import Reinforce, SoftTargets, evaluate, exit_curve, load_policy, paired_difference
from agents.baselines import RandomPolicy
from agents.experiments import bench as benches
from agents.experiments import pipelines, report, runner
from agents.experiments.ablations import ABLATIONS, Variant
from agents.experiments.algorithms import ALGORITHMS, get_algorithms, own
from agents.experiments.bench import Bench
from agents.experiments.noise import estimator_noise
from agents.experiments.report import read_csv, sample_efficiency, write_report, write_results
from agents.experiments.runner import LearningCurve, Result, Trial, run_trial, run_trials
from agents.reinforce import Hyperparameters
from tests.conftest import make_tiny_recognizer
from tests.test_frame_folders import write_video

EPISODES = 128


@dataclasses.dataclass
class Accuracy:
    accuracy: float


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("bench")
    make_tiny_recognizer().save(folder / "tiny.safetensors")
    changes = {"num_frames": 4, "frame_size": 48, "num_distractors": 1}
    made = Bench(str(folder / "tiny.safetensors"), str(folder / "banks"), num_videos=12, changes=changes, grid=4)
    made.build(("train", "val", "test"))
    return made


def trial(algorithm: str, **changes: Any) -> Trial:
    small = {"learning_starts": 32, "buffer_size": 500} if algorithm == "dqn" else {}
    return Trial(algorithm, algorithm, episodes=EPISODES, settings=small, curve=2, **changes)


def equal(one: Result, other: Result) -> bool:
    names = ("curve_episodes", "curve_accuracy", "correct", "returns", "gflops", "focused")
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_runs(algorithm: str, bench: Bench, tmp_path: Path) -> None:
    if algorithm == "recurrent_ppo":
        pytest.importorskip("sb3_contrib")
    result = run_trial(trial(algorithm), bench, tmp_path)
    assert len(result.correct) == 12
    assert result.curve_episodes.tolist() == [EPISODES // 2, EPISODES]
    assert ((result.curve_accuracy >= 0) & (result.curve_accuracy <= 1)).all()
    assert 0 < result.curve_seconds[0] < result.curve_seconds[1] <= result.seconds
    saved = Result.load(next(tmp_path.glob("*.npz")))
    assert saved.trial == result.trial
    assert equal(saved, result)
    (kept,) = (path for path in tmp_path.iterdir() if path.suffix in (".safetensors", ".zip"))
    again = evaluate(load_policy(kept), features=bench.features("test"))
    assert (again.correct == result.correct).all()
    assert (again.returns == result.returns).all()


def test_a_trial_does_not_depend_on_what_ran_before_it(bench: Bench, tmp_path: Path) -> None:
    """As trials of a killed comparison run in other processes than those of one that wasn't."""
    benches._features.cache_clear()
    first = run_trial(trial("ppo"), bench, tmp_path / "first")
    assert equal(run_trial(trial("ppo"), bench, tmp_path / "second"), first)


def test_algorithms_run_on_videos_without_locations(bench: Bench, tmp_path: Path) -> None:
    for row in range(6):
        write_video(tmp_path / "frames" / f"v{row}", 4, row)
    (tmp_path / "list.txt").write_text("".join(f"v{row}, 4, {row}\n" for row in range(6)))
    (tmp_path / "data.toml").write_text(
        'root = "frames"\ntrain_list = "list.txt"\ntest_list = "list.txt"\nnum_classes = 10\n'
        "num_frames = 4\nframe_size = 48\nresized = 56\n"
    )
    register_videos("six", lambda split: open_description(tmp_path / "data.toml", "test"))
    on_disk = replace(bench, videos="six", folder=None, changes={})
    assert on_disk.unknown == {"oracle", "localizer"}
    assert not bench.unknown
    assert len(run_trial(trial("reinforce"), on_disk, tmp_path).correct) == 6
    assert trial("reinforce").key(on_disk) != trial("reinforce").key(bench)
    with pytest.raises(ValueError, match="six can't be made with"):
        replace(bench, videos="six").dataset("test")


@pytest.mark.parametrize("variant", [*ABLATIONS["stages"], *ABLATIONS["skipping"]], ids=lambda variant: variant.name)
def test_every_pipeline_runs(variant: Variant, bench: Bench, tmp_path: Path) -> None:
    (one,) = variant.trials(range(1), 384, "test")
    result = run_trial(one, bench, tmp_path)
    assert len(result.correct) == 12
    assert result.seconds > 0
    assert equal(Result.load(next(tmp_path.glob("*.npz"))), result)
    if variant.algorithm == "stages":
        assert (result.focused == 4).all()
    features = bench.features("test")
    kept = set(tmp_path.glob("*.safetensors"))
    recognizers = set(tmp_path.glob("*-recognizer.safetensors"))
    for recognizer in recognizers:
        features = FeatureBank(Recognizer.from_pretrained(recognizer), features.videos, bench.grid)
    again = evaluate(load_policy(*(kept - recognizers)), features=features, **one.env)
    assert (again.correct == result.correct).all()
    assert (again.focused == result.focused).all()


def test_leaving_videos_early(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipelines, "ALLOWED_LOSS", 0.2)
    rules = [str(variant.settings["exit"]) for variant in ABLATIONS["stopping"]]
    trained = {rule: pipelines.stopping(bench, 0, 256, exit=rule) for rule in rules}
    found = {
        rule: evaluate(one.policy, features=bench.features("val"), exit_threshold=one.exit_threshold)
        for rule, one in trained.items()
    }
    whole, least = found["none"], exit_curve(found["none"]).gflops.min()
    assert (whole.frames == 4).all()
    assert found["threshold"].accuracy >= whole.accuracy - 0.2 - 1e-9
    assert found["threshold"].frames_per_video < 4
    assert can_stop(trained["learned"].policy.action_space)
    assert trained["learned"].exit_threshold is None
    assert found["threshold as learned"].gflops_per_video <= max(least, found["learned"].gflops_per_video) + 1e-9
    for rule in ("threshold", "threshold as learned"):  # of the same policy
        assert (found[rule].predictions[:, 0] == whole.predictions[:, 0]).all()


def test_pipelines_share_the_policies_that_they_have_in_common(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned = []
    learn = Reinforce.learn
    monkeypatch.setattr(Reinforce, "learn", lambda agent, *args: learned.append(agent) or learn(agent, *args))
    rows = [*ABLATIONS["stopping"], ABLATIONS["skipping"][0]]
    results = [run_trial(*one, bench, tmp_path) for variant in rows for one in [variant.trials(range(1), 96, "val")]]
    assert len(learned) == 3  # where to look, when not to, and when to stop
    assert (results[0].correct == results[-1].correct).all()
    assert results[-1].seconds == pytest.approx(results[0].seconds, rel=0.9)  # as if it had trained them itself


def test_a_threshold_counts_in_a_trials_result(bench: Bench, tmp_path: Path) -> None:
    results = {}
    for variant in ABLATIONS["stopping"][:2]:
        (one,) = variant.trials(range(1), 256, "val")
        results[variant.settings["exit"]] = run_trial(one, bench, tmp_path)
    assert results["threshold"].gflops.mean() < results["none"].gflops.mean()


def test_at_matching_prices_a_gflop_costs_the_same_everywhere(bench: Bench) -> None:
    features = bench.features("val")
    policy = RandomPolicy(AdaFocusVectorEnv(2, features=features))
    cost = features.recognizer.cost()
    price = pipelines.matching_glance_cost(features.recognizer, policy, 0.03)
    assert price / (cost.glance + cost.classifier) == pytest.approx(0.03 / cost.local)
    agent = Reinforce(AdaFocusVectorEnv(2, features=features), seed=0)  # its own network counts too
    assert pipelines.matching_glance_cost(features.recognizer, agent, 0.03) > price


def test_processes_find_what_one_process_finds(bench: Bench, tmp_path: Path) -> None:
    trials = [trial("reinforce", seed=seed) for seed in (0, 1)] + [Trial("random", "random")]
    alone = run_trials(trials, bench, tmp_path / "alone", backend="sequential")
    together = run_trials(trials, bench, tmp_path / "together", jobs=2)
    assert [result.trial for result in together] == trials
    assert all(equal(*pair) for pair in zip(alone, together, strict=True))
    assert not equal(alone[0], alone[1])


@pytest.mark.slow
def test_dask_workers_find_what_one_process_finds(bench: Bench, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    trials = [trial("reinforce", seed=seed) for seed in (0, 1)] + [Trial("random", "random")]
    alone = run_trials(trials, bench, tmp_path / "alone", backend="sequential")
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster),
    ):
        together = run_trials(trials, bench, tmp_path / "together", backend="dask")
    assert all(equal(*pair) for pair in zip(alone, together, strict=True))


def test_a_restart_runs_only_what_is_missing(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trials = [trial("reinforce", seed=seed) for seed in (0, 1)]
    first = run_trials(trials, bench, tmp_path, backend="sequential")
    (tmp_path / f"{trials[1].key(bench)}.npz").unlink()
    trained = []
    real = runner.evaluate
    monkeypatch.setattr(runner, "evaluate", lambda *a, **k: trained.append(1) or real(*a, **k))
    again = run_trials(trials, bench, tmp_path, backend="sequential")
    assert len(trained) == 3  # two points of one curve, and its end
    assert all(equal(*pair) for pair in zip(first, again, strict=True))


def test_the_time_of_a_curve_is_that_of_training_alone(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that goes on by 1 with every step of training and by 100 with every evaluation."""
    clock = [0.0]

    class Model:
        num_timesteps, logger = 0, None

    def evaluated(model: Any, **_: Any) -> Any:
        clock[0] += 100
        return Accuracy(model.num_timesteps / 80)

    monkeypatch.setattr(runner, "evaluate", evaluated)
    monkeypatch.setattr(runner.time, "perf_counter", lambda: clock[0])
    curve, model = LearningCurve(bench.features("val"), 80, points=4), Model()
    curve.init_callback(model)  # type: ignore[arg-type]
    curve.on_training_start({}, {})
    for _ in range(10):
        clock[0] += 1
        model.num_timesteps += 8
        curve.on_step()
    assert curve.episodes == [6, 10, 16, 20]  # of four frames; after 24, 40, 64 and 80 steps
    assert curve.seconds == [3, 5, 8, 10]
    assert curve.accuracy == [0.3, 0.5, 0.8, 1.0]
    assert curve.training_seconds == 10


def test_a_result_belongs_to_its_training_videos(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    one, before = trial("reinforce", split="val"), {}
    for split in ("none", "train", "val", "test"):
        with monkeypatch.context() as patch:
            fingerprint = benches._video_fingerprint
            patch.setattr(benches, "_video_fingerprint", lambda b, s: fingerprint(b, s) + (s == split) * "another")  # noqa: B023
            before[split] = one.key(bench)
    assert before["none"] == before["test"]  # which it never sees
    assert len({before["none"], before["train"], before["val"]}) == 3


def test_a_result_belongs_to_all_that_determines_it(bench: Bench) -> None:
    one = trial("reinforce")
    others = [
        dataclasses.replace(one, seed=1),
        dataclasses.replace(one, episodes=64),
        dataclasses.replace(one, settings={"gamma": 0.5}),
        dataclasses.replace(one, env={"reward": "confidence"}),
        dataclasses.replace(one, split="val"),
        dataclasses.replace(one, algorithm="paper"),
    ]
    keys = {each.key(bench) for each in (one, *others)} | {one.key(dataclasses.replace(bench, grid=5))}
    assert len(keys) == len(others) + 2


def test_tables_share_the_trials_that_they_have_in_common(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = trial("reinforce")
    preset = ALGORITHMS["reinforce"].settings
    settings = {"gamma": preset["gamma"], "averaging": Hyperparameters.averaging, **one.settings}
    other = dataclasses.replace(one, name="another row", settings=settings, env={"baseline": "sample"})
    first = run_trial(one, bench, tmp_path)

    def fail(*_: Any) -> None:
        raise AssertionError("it was trained again")

    monkeypatch.setattr(own, "__call__", fail)
    second = run_trial(other, bench, tmp_path)
    assert second.trial == other
    assert equal(first, second)
    before = one.key(bench)
    monkeypatch.setattr(runner, "code_of", lambda file: "another")
    assert one.key(bench) != before


def test_no_two_rows_of_a_table_share_a_trial(bench: Bench) -> None:
    """The paper's recipe has defaults of its own: the preset's, given to it, are other settings."""
    for name, variants in ABLATIONS.items():
        keys = [each.trials(range(1), EPISODES, "test")[0].key(each.on(bench)) for each in variants]
        assert len({*keys}) == len(keys), name


def test_an_agent_with_other_defaults_than_it_says_is_refused(bench: Bench) -> None:
    class Hidden(Reinforce):
        def __init__(self, env: Any, **kwargs: Any) -> None:
            super().__init__(env, **{"gamma": 0.1, **kwargs})

    make = own(Hidden)
    assert make(bench.features("train"), 0, {}, {"gamma": 0.3}, num_envs=2).config.gamma == 0.3
    with pytest.raises(ValueError, match="Hidden's defaults are not those of its hyperparameters_class"):
        make(bench.features("train"), 0, {}, {}, num_envs=2)


def test_the_random_patch_is_noise_in_the_return(bench: Bench) -> None:
    rows = estimator_noise(ABLATIONS["baseline"], bench, 0, EPISODES, critic_episodes=512, batches=40)
    sample, exact, all_actions = rows
    assert [row["name"] for row in rows] == ["sample", "exact", "exact, all actions"]
    assert sample["return_variance"] > 1.2 * exact["return_variance"]
    assert sample["gradient_variance"] > exact["gradient_variance"] > all_actions["gradient_variance"] > 0


def test_a_pipelines_result_belongs_to_the_presets(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    (one,) = ABLATIONS["stages"][1].trials(range(1), 384, "test")
    before = one.key(bench)
    monkeypatch.setitem(pipelines.SKIP_HYPERPARAMETERS, "gamma", 0.5)
    assert one.key(bench) != before


def curve_rows(name: str, curves: list[list[float]]) -> list[dict[str, str]]:
    return [
        {"name": name, "seed": str(seed), "episodes": str(100 * (at + 1)), "seconds": str(at), "accuracy": str(value)}
        for seed, line in enumerate(curves)
        for at, value in enumerate(line)
    ]


def test_sample_efficiency_is_the_ratio_of_episodes_to_the_anchors_end() -> None:
    slow, fast = [[10.0 * t for t in range(1, 11)]] * 3, [[20.0 * t for t in range(1, 11)]] * 3
    flat = [[50.0] * 10, [150.0] * 10]
    points = curve_rows("slow", slow) + curve_rows("fast", fast) + curve_rows("flat", flat)
    found = sample_efficiency(points, "slow")
    # Smoothed, slow ends at 90 after 900 episodes; fast is there after 450.
    assert found["fast"] == pytest.approx((0.5, 0.5, 0.5))
    assert set(found) == {"fast"}  # one seed of the flat ones never gets there


def test_report_is_made_from_the_csv_files_alone(bench: Bench, tmp_path: Path) -> None:
    trials = [Trial("random", "random"), Trial("oracle", "oracle")]
    trials += [
        dataclasses.replace(trial(name, seed=seed), curve=4) for name in ("reinforce", "paper") for seed in (0, 1)
    ]
    write_results(tmp_path, run_trials(trials, bench, tmp_path / "trials", backend="sequential"), [bench] * len(trials))
    for file in (tmp_path / "trials").iterdir():
        file.unlink()
    text = write_report(tmp_path, title="A comparison", anchors=["paper"], note="On a tiny benchmark.").read_text()
    rows = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if line.startswith("| ")}
    assert " 0.000" in rows["random"]
    assert " 1.000" in rows["oracle"]
    assert {"reinforce", "paper"} <= set(rows)
    assert "## Against paper" in text
    assert (tmp_path / "curves.png").stat().st_size > 5000
    assert (tmp_path / "profiles.png").stat().st_size > 5000


def result(name: str, algorithm: str, correct: list[int], seed: int = 0, seconds: float = 0.0) -> Result:
    nothing = np.zeros(0)
    return Result(
        Trial(name, algorithm, seed), nothing.astype(int), nothing, nothing, seconds, np.array(correct, dtype=bool),
        *np.zeros((2, len(correct))), *np.zeros((2, len(correct)), dtype=int),
        np.arange(len(correct)) // 2,
    )  # fmt: skip


def test_scores_are_between_the_references_of_their_own_bench(bench: Bench, tmp_path: Path) -> None:
    large = replace(bench, grid=5)
    results = [
        result("random, N = 16", "random", [0, 0, 0, 1]), result("best, N = 16", "oracle", [1, 1, 1, 1]),
        result("learned, N = 16", "reinforce", [0, 0, 1, 1], seconds=1),
        result("random, N = 25", "random", [0, 0, 1, 1]), result("best, N = 25", "oracle", [0, 1, 1, 1]),
        result("learned, N = 25", "reinforce", [0, 0, 1, 1], seconds=1),
    ]  # fmt: skip
    write_results(tmp_path, results, [bench] * 3 + [large] * 3)
    scores = {row["name"]: float(row["score"]) for row in read_csv(tmp_path / "runs.csv")}
    assert [*scores.values()] == pytest.approx([0, 1, 1 / 3, 0, 1, 0], abs=1e-5)
    assert not (tmp_path / "differences.csv").exists()  # of other videos or patches they would mean nothing
    write_results(tmp_path, results[:1], [bench])
    assert read_csv(tmp_path / "runs.csv")[0]["score"] == "0.25"  # without both references the accuracy


def test_learners_are_compared_with_the_most_accurate_one(bench: Bench, tmp_path: Path) -> None:
    accuracies = {"good": [[1, 1, 1, 1], [1, 1, 1, 0]], "bad": [[1, 1, 0, 0], [1, 1, 0, 0]]}
    results = [
        result(name, "reinforce", row, seed, seconds=1)
        for name, rows in accuracies.items()
        for seed, row in enumerate(rows)
    ]
    write_results(tmp_path, [result("random", "random", [1, 1, 1, 1]), *results], [bench] * 5)
    (row,) = read_csv(tmp_path / "differences.csv")
    assert (row["name"], row["of"], row["points"]) == ("bad", "good", "-37.5")
    bad, good = (np.array(accuracies[name]) for name in ("bad", "good"))
    _, *bounds = paired_difference(bad, good, results[0].source_images)
    assert [float(row["low"]), float(row["high"])] == pytest.approx([100 * bound for bound in bounds], abs=0.01)
    text = write_report(tmp_path, title="Two", anchors=()).read_text()
    assert f"| bad | -37.5 ({row['low']} to {row['high']}) |" in text


def test_all_pairs_of_learners_are_compared_and_compute_is_shown_where_it_differs(bench: Bench, tmp_path: Path) -> None:
    results = [result(name, "reinforce", row, seconds=1) for name, row in
               (("b", [1, 1, 0, 0]), ("a", [1, 1, 1, 0]), ("c", [0, 0, 0, 1]))]  # fmt: skip
    results[2] = replace(results[2], focused=np.array([1, 2, 3, 4]))
    write_results(tmp_path, results, [bench] * 3)
    found = [(row["name"], row["of"]) for row in read_csv(tmp_path / "differences.csv")]
    assert found == [("b", "a"), ("c", "a"), ("c", "b")]
    text = write_report(tmp_path, title="Three").read_text()
    assert "| accuracy % | GFLOPs | glances | looks | mean return |" in text
    assert "| c | -50.0" in text.partition("## Against a")[2]
    assert text.count("| c | -50.0") + text.count("| c | -25.0") == 1


def test_every_learner_of_a_figure_has_a_line_of_its_own(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    curve: dict[str, Any] = {
        "curve_episodes": np.arange(1, 4),
        "curve_seconds": np.ones(3),
        "curve_accuracy": np.ones(3),
    }
    results = [replace(result(name, name, [1, 0], seconds=1), **curve) for name in ALGORITHMS]
    write_results(tmp_path, results, [bench] * len(results))
    figures: list[Figure] = []
    monkeypatch.setattr(report, "write_figure", lambda path, figure, dpi: figures.append(figure))
    write_report(tmp_path, title="Many", comparable_returns=False)
    plots = [axes.get_lines() for figure in figures for axes in figure.axes]
    assert len(plots) == 3
    for lines in plots:
        assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == len(ALGORITHMS)


def test_report_without_results_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="run the comparison first"):
        write_report(tmp_path, title="Nothing")


def test_a_folder_of_other_settings_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    check_settings(path, {"steps": 3, "scales": (1.0, 0.5)})
    check_settings(path, {"steps": 3, "scales": (1.0, 0.5)})
    with pytest.raises(SystemExit, match="another steps"):
        check_settings(path, {"steps": 4, "scales": (1.0, 0.5)})
    with pytest.raises(SystemExit, match="another scales and seeds and steps"):
        check_settings(path, {"seeds": 3})
    check_settings(path, {"steps": 3, "scales": (1.0, 0.5)})


def test_ablations_name_what_there_is(bench: Bench) -> None:
    for variants in ABLATIONS.values():
        assert len({variant.name for variant in variants}) == len(variants)
        for variant in variants:
            if variant.algorithm in ALGORITHMS:
                known = SoftTargets if variant.algorithm == "soft_targets" else Reinforce
                assert variant.settings.keys() <= known.hyperparameters_class.__dataclass_fields__.keys()
            for one in variant.trials(range(2), 64, "val"):
                one.key(variant.on(bench))  # knows its algorithm
            if variant.bench:
                assert variant.on(bench).folder is None


# --------------------------------------------------------------------------------------------- the user's algorithms

MINE = """
from agents import Reinforce
from agents.experiments.algorithms import Algorithm, own

class Mine(Reinforce):
    def learn(self, *args, **kwargs):
        print("mine is learning", flush=True)
        return super().learn(*args, **kwargs)

TUNED = Algorithm("mine, tuned", own(Mine), {"baseline": "exact"}, {"gamma": 0.0}, {"gamma": (0.0, 0.5)})
NOTHING = 3
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of the user's in the working directory, which no test has imported before."""
    path = tmp_path / f"mine_{tmp_path.name.replace('-', '_')}.py"
    path.write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each not in ("", str(tmp_path))])
    return path


@pytest.mark.slow
def test_an_algorithm_of_the_users_runs_in_other_processes(mine: Path, bench: Bench) -> None:
    names = [f"{mine.stem}:Mine", f"{mine.stem}:TUNED"]
    assert get_algorithms("--algorithms", names)[names[1]].title == "mine, tuned"
    get_reusable_executor().shutdown(wait=True)  # processes of earlier tests know other working directories
    trials = [trial(name, seed=seed) for name in names for seed in (0, 1)]
    results = run_trials(trials, bench, mine.parent / "trials", jobs=2)
    assert all(result.trial == each and len(result.correct) == 12 for result, each in zip(results, trials, strict=True))
    written = sorted(path.name for path in (mine.parent / "trials").iterdir())
    assert len(written) == 2 * len(trials)
    assert all(name.startswith((f"{mine.stem}_Mine-", f"{mine.stem}_TUNED-")) for name in written)
    keys = {each.key(bench) for each in trials}
    assert {f"{key}.npz" for key in keys} < set(written)
    mine.write_text(f"{MINE}\n# another version\n")
    assert not keys & {each.key(bench) for each in trials}


def test_what_is_no_algorithm_is_refused(mine: Path) -> None:
    for wrong, reason in {
        "nothing": "--algorithms: unknown nothing; there are a2c, .* and module:name of one of your own",
        f"{mine.stem}:NOTHING": "must be the module:name .*, not 3",
        f"{mine.stem}:missing": "must be the module:name .*, not None",
    }.items():
        with pytest.raises(ValueError, match=reason):
            get_algorithms("--algorithms", [wrong])
    with pytest.raises(ImportError, match="no_such_module"):
        get_algorithms("--algorithms", ["no_such_module:Mine"])
    mine.with_name(f"{mine.stem}_too.py").write_text(MINE)
    with pytest.raises(ValueError, match="several algorithms have the title mine, tuned"):
        get_algorithms("--algorithms", [f"{mine.stem}:TUNED", f"{mine.stem}_too:TUNED"])
