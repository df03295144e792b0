"""The shared training loop: schedules, averages, and resuming as if nothing had happened."""

from pathlib import Path

import pytest
import torch
from torch import nn

from stepscope.pocket import checkpoints, process, training, weights


def options(folder: Path, *, slice_: float | None = None) -> process.Options:
    return process.Options(
        smoke=False,
        seconds=None,
        slice=slice_,
        onward=False,
        album=0,
        people=None,
        checkpoints=folder,
        models=folder,
    )


@pytest.fixture
def logs(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "LOGS", tmp_path / "logs")
    return tmp_path


def stage_of(model: nn.Module, said: process.Options, steps: int) -> training.Stage:
    return training.Stage("line", {"model": model}, said, rate=0.05, steps=steps, ema=0.9)


def descend(stage: training.Stage, stop: int | None = None) -> None:
    """Fit y = 3 x on points that depend on the step alone."""
    for _ in stage:
        x = torch.linspace(-1, 1, 8)[:, None] * (1 + 0.1 * (stage.step % 3))
        stage.descend((stage.modules["model"](x) - 3 * x).square().mean())
        if stage.step == stop:
            return


def test_a_stage_reaches_its_goal_and_logs_it(logs):
    model = nn.Linear(1, 1)
    stage = stage_of(model, options(logs / "a"), 300)
    descend(stage)
    stage.finish()
    assert stage.done
    assert stage.step == 300
    torch.testing.assert_close(model.weight.detach(), torch.tensor([[3.0]]), atol=0.05, rtol=0)
    assert (logs / "logs" / "line.csv").read_text().startswith("step,seconds,loss")
    assert (logs / "logs" / "line.png").exists()


def test_an_interrupted_stage_ends_as_an_uninterrupted_one(logs):
    ends = []
    for stop in (None, 25):
        torch.manual_seed(1)
        folder = logs / str(stop)
        model = nn.Linear(1, 1)
        stage = stage_of(model, options(folder), 60)
        descend(stage, stop)
        if stop:
            stage.keep()
            torch.manual_seed(7)
            model = nn.Linear(1, 1)
            stage = stage_of(model, options(folder), 60)
            assert stage.step == stop
            descend(stage)
        stage.finish()
        ends.append(torch.cat([p.flatten() for p in model.parameters()]))
    torch.testing.assert_close(*ends)


def test_a_slice_of_time_keeps_a_checkpoint_and_is_not_the_end(logs):
    stage = training.Stage(
        "line", {"m": nn.Linear(1, 1)}, options(logs, slice_=0.0), rate=0.1, seconds=1000.0
    )
    for _ in stage:
        stage.descend(stage.modules["m"](torch.ones(1, 1)).square().sum())
    assert not stage.done
    assert list(logs.glob("line.*.part"))


def test_parts_are_bounded_and_come_back(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "PART", 1000)
    state = {"weights": torch.arange(1000.0), "step": 7}
    checkpoints.write_parts(tmp_path / "x", state)
    parts = list(tmp_path.glob("x.*.part"))
    assert len(parts) > 3
    assert max(p.stat().st_size for p in parts) <= 1000
    back = checkpoints.read_parts(tmp_path / "x", torch.device("cpu"))
    assert back is not None
    assert torch.equal(back["weights"], state["weights"])
    assert checkpoints.read_parts(tmp_path / "y", torch.device("cpu")) is None


def test_half_precision_files_come_back_frozen(tmp_path):
    module = nn.Linear(3, 3)
    weights.save_half(module, tmp_path / "m.safetensors")
    back = weights.load_half(nn.Linear(3, 3), tmp_path / "m.safetensors")
    torch.testing.assert_close(back.weight, module.weight.detach().half().float())
    assert not any(p.requires_grad for p in back.parameters())


def test_the_learning_rate_warms_up_then_falls():
    rates = [training.learning_rate(p / 100, 1.0) for p in range(101)]
    assert max(rates) == pytest.approx(1.0, abs=0.01)
    assert rates[0] < 0.02
    assert rates[-1] == pytest.approx(0.02)
