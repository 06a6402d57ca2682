"""What a sweep makes of processes that die, of what they say, and of another sweep at work in its folder."""

from __future__ import annotations

import dataclasses
import errno

import pytest
from inline import Inline

from fewshot.config import TrainConfig
from fewshot.core.console import FAILED
from fewshot.sweeps import runs
from fewshot.sweeps.conduct import TRIES, conduct
from fewshot.sweeps.folder import Sweep
from fewshot.sweeps.worker import work

NAME = "none-seed0"


@pytest.fixture
def made(tmp_path) -> Sweep:
    return Sweep.make(tmp_path / "sweep", {NAME: TrainConfig(dataset="glyphs", device="cpu", threads=1)})


class Dying(Inline):
    """A process that ends with a status, however often it is begun."""

    def __init__(self, sweep: Sweep, status: int) -> None:
        super().__init__(sweep)
        self.status, self.begun = status, 0

    def start(self, names) -> None:
        for name in names:
            self.begun += 1
            self.sweep.log(name).parent.mkdir(exist_ok=True)
            self.sweep.log(name).write_text("step 10/100  loss 1.0\n")
            self.statuses[name] = self.status


@pytest.mark.parametrize(("status", "how"), [(-9, "killed by signal 9"), (1, "exit status 1")])
def test_a_run_whose_process_dies_is_tried_three_times_and_it_is_said_how_it_died(made, status, how):
    processes = Dying(made, status)
    (why,) = conduct(made, processes).values()
    assert why == f"its process died 3 times ({how}); its last line: step 10/100  loss 1.0"
    assert processes.begun == TRIES == 3


def test_a_users_mistake_is_not_tried_again(made):
    processes = Dying(made, 2)
    assert conduct(made, processes) == {NAME: "step 10/100  loss 1.0"} and processes.begun == 1


@pytest.mark.parametrize("error", [RuntimeError("boom"), BlockingIOError(errno.EAGAIN, "no more processes")])
def test_what_no_one_foresaw_is_in_the_log_and_is_no_claim_of_another_process(made, monkeypatch, error):
    """A limit on processes is a BlockingIOError, too, as a claimed run is."""

    def fails(*_):
        raise error

    monkeypatch.setattr(runs, "complete", fails)
    assert work(made.folder, NAME, made.how(NAME)) == FAILED
    assert made.last_words(NAME) == f"{type(error).__name__}: {error}"


def test_two_sweeps_at_work_in_one_folder_train_each_as_it_was_asked_to(made, monkeypatch):
    """The second writes its plan into the folder; the first has runs that it has not begun."""
    trained = []
    monkeypatch.setattr(runs, "complete", lambda config, *_: trained.append(config))
    theirs = dataclasses.replace(made.plan[NAME], device="cuda", data_root="there", threads=9, checkpoint_seconds=5.0)
    second = Sweep.make(made.folder, {NAME: theirs})
    for each in (made, second):
        assert work(each.folder, NAME, each.how(NAME)) == 0
    assert trained == [made.plan[NAME], theirs]


def test_a_second_sweep_takes_no_run_from_the_first(made, monkeypatch):
    """The first has runs that it has not begun."""
    trained = []
    monkeypatch.setattr(runs, "complete", lambda config, *_: trained.append(config.reg))
    Sweep.make(made.folder, {"dropout-seed0": dataclasses.replace(made.plan[NAME], reg="dropout")})
    assert Sweep.open(made.folder).plan.keys() == {NAME, "dropout-seed0"}
    assert work(made.folder, NAME, made.how(NAME)) == 0 and trained == ["none"]
