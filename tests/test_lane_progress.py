"""How far lanes are, against plain counting."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from adafocus_env.environments.lane_progress import LaneProgress

LANES, STEPS = 3, 4
masks = st.lists(st.booleans(), min_size=LANES, max_size=LANES)


@given(st.lists(st.none() | masks, max_size=12), st.sampled_from([1, 2, 4]))
def test_progress_equals_counting(events: list[list[bool] | None], looks: int) -> None:
    """Each event is a step of all lanes that run, or a restart of some lanes."""
    start = LaneProgress(np.zeros(LANES, dtype=np.int64), STEPS, torch.device("cpu"), looks)
    values = torch.arange(LANES * STEPS).view(LANES, STEPS)
    progress, counts = start, [0] * LANES
    for restarted in events:
        if restarted is None:
            progress, counts = progress.next, [min(count + 1, STEPS) for count in counts]
        else:
            progress = progress.restarted(np.array(restarted))
            counts = [0 if again else count for again, count in zip(restarted, counts, strict=True)]
        steps = [min(count, STEPS - 1) for count in counts]
        over = [count == STEPS for count in counts]
        assert progress.steps.tolist() == counts
        assert (progress.over.tolist(), progress.running.tolist()) == (over, [not ended for ended in over])
        assert (progress.any_over, progress.all_over) == (any(over), all(over))
        assert progress.share.tolist() == [[count / STEPS] for count in counts]
        assert progress.frame.tolist() == [step // looks for step in steps]
        assert progress.at_new_frame.tolist() == [count % looks == 0 for count in counts]
        assert progress.all_at_new_frame == all(progress.at_new_frame)
        assert values[progress.now].tolist() == [[STEPS * lane + step] for lane, step in enumerate(steps)]
    assert start.steps.tolist() == [0] * LANES


def test_lanes_that_go_together_are_computed_once() -> None:
    start = LaneProgress(np.zeros(LANES, dtype=np.int64), STEPS, torch.device("cpu"))
    assert start.next.next is start.next.next
