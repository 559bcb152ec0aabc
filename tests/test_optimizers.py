"""Muon on kernels against torch's own on the flattened matrix, schedules and averages by hand."""

import copy

import pytest
import torch
from refusals import refused
from torch import nn

from persistworld.config.training import OptimizerConfig
from persistworld.training.optimizers import MatrixOptimizer, ema_update, learning_rate_share, orthogonalise

MUON = OptimizerConfig(learning_rate=1e-2, weight_decay=0.1, clip_norm=1e9)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(16, 3))


def loss(model: nn.Module, step: int) -> torch.Tensor:
    return model(torch.randn(5, 2, 4, 4, generator=torch.Generator().manual_seed(step))).square().sum()


def train(model: nn.Module, optimizer: MatrixOptimizer, steps: range, share: float = 1.0) -> None:
    for step in steps:
        loss(model, step).backward()
        optimizer.step(share)


@pytest.mark.parametrize("adjust", ["original", "match_rms_adamw"])
def test_muon_on_kernels_is_torchs_on_the_flattened_matrix(adjust):
    """Three steps of both, with vectors by AdamW."""
    ours, theirs = network(), network()
    settings = OptimizerConfig(learning_rate=1e-2, weight_decay=0.1, clip_norm=1e9, adjust_lr=adjust)
    optimizer = MatrixOptimizer(ours.parameters(), settings)
    matrices = [nn.Parameter(p.detach().flatten(1).clone()) for p in theirs.parameters() if p.ndim > 1]
    vectors = [p for p in theirs.parameters() if p.ndim == 1]
    muon = torch.optim.Muon(matrices, lr=1e-2, weight_decay=0.1, adjust_lr_fn=adjust)
    adamw = torch.optim.AdamW(vectors, lr=1e-2, weight_decay=0.1)
    for step in range(3):
        train(ours, optimizer, range(step, step + 1))
        theirs.zero_grad()
        loss(theirs, step).backward()
        originals = [p for p in theirs.parameters() if p.ndim > 1]
        for matrix, original in zip(matrices, originals, strict=True):
            matrix.grad = original.grad.flatten(1)
        muon.step()
        adamw.step()
        with torch.no_grad():
            for matrix, original in zip(matrices, originals, strict=True):
                original.copy_(matrix.view_as(original))
    for own, other, start in zip(ours.parameters(), theirs.parameters(), network().parameters(), strict=True):
        assert (own - other).norm() < 0.02 * (other - start).norm()  # torch's iterations are in bfloat16


def test_orthogonalisation_moves_singular_values_and_keeps_the_vectors():
    """Against the polynomial applied to the singular values themselves, tall and wide, several matrices at once."""
    a, b, c = coefficients = (3.4445, -4.7750, 2.0315)
    for shape in ((2, 6, 4), (3, 4, 9)):
        matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        left, values, right = torch.linalg.svd(matrices, full_matrices=False)
        values = values / values.norm(dim=1, keepdim=True)
        for _ in range(5):
            values = a * values + b * values**3 + c * values**5
        assert ((values > 0.6) & (values < 1.3)).all()
        torch.testing.assert_close(orthogonalise(matrices, coefficients, 5, 1e-7), left @ torch.diag_embed(values) @ right)


def test_adamw_takes_everything():
    ours, theirs = network(), network()
    settings = OptimizerConfig(name="adamw", learning_rate=1e-2, weight_decay=0.1, clip_norm=1e9)
    train(ours, MatrixOptimizer(ours.parameters(), settings), range(3))
    adamw = torch.optim.AdamW(theirs.parameters(), lr=1e-2, weight_decay=0.1)
    for step in range(3):
        adamw.zero_grad()
        loss(theirs, step).backward()
        adamw.step()
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_clipping_reports_the_norm_before_it():
    ours, theirs = network(), network()
    settings = OptimizerConfig(name="adamw", learning_rate=1e-2, clip_norm=0.5)
    loss(ours, 0).backward()
    norm = MatrixOptimizer(ours.parameters(), settings).step()
    loss(theirs, 0).backward()
    total = torch.cat([p.grad.flatten() for p in theirs.parameters()]).norm()
    assert norm == pytest.approx(total.item(), rel=1e-5) and norm > 0.5
    assert all(p.grad is None for p in ours.parameters())  # cleared for the next step


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_a_gradient_that_is_not_finite_stops_the_training_before_it_is_taken(name):
    model = network()
    before = copy.deepcopy(model.state_dict())
    (loss(model, 0) * float("nan")).backward()
    with refused("nan", "optimizer.learning_rate", 0.01):
        MatrixOptimizer(model.parameters(), OptimizerConfig(name=name, learning_rate=1e-2)).step()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_share_of_the_rate_is_a_smaller_step():
    whole, half, none = network(), network(), network()
    for model, share in ((whole, 1.0), (half, 0.5), (none, 0.0)):
        train(model, MatrixOptimizer(model.parameters(), OptimizerConfig(learning_rate=1e-2)), range(1), share)
    for start, a, b, c in zip(*(m.parameters() for m in (network(), whole, half, none)), strict=True):
        torch.testing.assert_close(a - start, 2 * (b - start), rtol=1e-3, atol=1e-6)
        assert torch.equal(c, start)


def test_frozen_parameters_stay():
    model = network()
    model[0].requires_grad_(False)
    train(model, MatrixOptimizer(model.parameters(), MUON), range(2))
    assert torch.equal(model[0].weight, network()[0].weight) and not torch.equal(model[2].weight, network()[2].weight)


def test_state_goes_on_where_it_stopped(tmp_path):
    """Through a file, as training states go."""
    whole, first = network(), network()
    train(whole, MatrixOptimizer(whole.parameters(), MUON), range(4))
    optimizer = MatrixOptimizer(first.parameters(), MUON)
    train(first, optimizer, range(2))
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    second = copy.deepcopy(first)
    resumed = MatrixOptimizer(second.parameters(), MUON)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    train(second, resumed, range(2, 4))
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), second.parameters(), strict=True))


def test_rate_rises_stays_and_falls():
    assert [learning_rate_share(s, 10) for s in (0, 9)] == [1, 1]
    assert [learning_rate_share(s, 100, warmup=4) for s in range(5)] == [0.25, 0.5, 0.75, 1, 1]
    falling = [learning_rate_share(s, 10, decay_from=0.6) for s in range(10)]
    assert falling == pytest.approx([1] * 7 + [0.75, 0.5, 0.25])
    assert learning_rate_share(0, 1, decay_from=0.5) == 1  # a run of one step is not a run of none


def test_ema_by_hand():
    average, current = [torch.tensor([1.0, 2.0])], [torch.tensor([3.0, 6.0])]
    ema_update(average, current, 0.75)
    assert average[0].tolist() == [1.5, 3.0]
    ema_update(average, current, 0.0)
    assert torch.equal(average[0], current[0]) and average[0] is not current[0]
    with pytest.raises(RuntimeError):
        ema_update(average, [], 0.5)
