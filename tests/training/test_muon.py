import pytest
import torch
from torch import nn

from sepnet.recipes.recipe import Recipe
from sepnet.training.initialization import build_optimizer
from sepnet.training.muon import TURNED, Muon, orthogonalize


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 8, 24), (2, 24, 8), (1, 1, 5)])
def test_singular_values_become_about_one_and_vectors_stay(shape: tuple[int, ...]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, _, vh = torch.linalg.svd(matrices, full_matrices=False)
    core = u.mT @ orthogonalize(matrices) @ vh.mT
    values = core.diagonal(dim1=1, dim2=2)
    assert values.min() > 0.3  # a singular value far below the largest is not all the way up after five iterations
    assert values.max() < 1.25
    assert values.median() > 0.65
    assert (core - torch.diag_embed(values)).abs().max() < 1e-3


def test_the_direction_is_that_of_pytorchs_muon() -> None:
    weight = nn.Parameter(torch.randn(12, 20))
    layer = nn.Conv2d(20, 12, 1, bias=False)
    layer.weight.data.copy_(weight.data[:, :, None, None] * 12**0.5 / weight.data.norm())
    peer = torch.optim.Muon([weight], lr=1e-3, weight_decay=0.0, momentum=0.9)
    ours = Muon([{"params": [layer.weight], TURNED: True}], lr=1e-3, momentum=0.9, nesterov=True)
    for _ in range(3):
        before, ours_before = weight.detach().clone(), layer.weight.detach().clone()
        slope = torch.randn(12, 20)
        weight.grad, layer.weight.grad = slope.clone(), slope[:, :, None, None].clone()
        peer.step()
        ours.step()
        step, own_step = weight.detach() - before, (layer.weight.detach() - ours_before).flatten()
        # PyTorch's computes in bf16; ours then scales the weight, which turns nothing.
        radial = ours_before.flatten() / ours_before.norm()
        expected = step.flatten() - (step.flatten() @ radial) * radial
        assert torch.cosine_similarity(own_step, expected, dim=0) > 0.99


def _pair() -> nn.Sequential:
    """Return pointwise layers with a batch norm behind them, with another layer, and with none."""
    first = [nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6)]
    return nn.Sequential(*first, nn.Conv2d(6, 3, 1), nn.ReLU(), nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1))


def test_pointwise_weights_before_a_batch_norm_keep_their_norm_and_the_others_take_sgds_step() -> None:
    recipe = Recipe(optimizer="muon", lr=0.1, muon_lr=0.03, momentum=0.8, weight_decay=0.01)
    ours, peer = _pair(), _pair()
    peer.load_state_dict(ours.state_dict())
    optimizers = (
        build_optimizer(ours, recipe),
        build_optimizer(peer, Recipe(**{**recipe.to_dict(), "optimizer": "sgd"})),
    )
    for step in range(3):
        for model, optimizer in zip((ours, peer), optimizers, strict=True):
            for index, parameter in enumerate(model.parameters()):
                parameter.grad = torch.randn(
                    parameter.shape, generator=torch.Generator().manual_seed(step * 100 + index)
                )
            optimizer.step()
    assert ours.get_parameter("1.weight").norm().item() == pytest.approx(6**0.5)
    others = [name for name, _ in ours.named_parameters() if name != "1.weight"]
    assert {"0.weight", "3.weight", "6.weight"} < set(others)
    for name in others:
        torch.testing.assert_close(ours.get_parameter(name), peer.get_parameter(name))


def test_a_step_turns_a_weight_by_the_rate() -> None:
    layer = nn.Conv2d(32, 32, 1, bias=False)
    layer.weight.data *= 32**0.5 / layer.weight.data.norm()
    before = layer.weight.detach().clone()
    optimizer = Muon([{"params": [layer.weight], TURNED: True}], lr=0.05)
    layer.weight.grad = torch.randn_like(layer.weight)
    optimizer.step()
    assert ((layer.weight - before).norm() / before.norm()).item() == pytest.approx(0.05, rel=0.2)


def test_a_weight_without_a_gradient_stays() -> None:
    model = _pair()
    before = model.get_parameter("1.weight").detach().clone()
    build_optimizer(model, Recipe(optimizer="muon")).step()
    assert torch.equal(model.get_parameter("1.weight"), before)
