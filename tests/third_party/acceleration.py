"""How much of a network sepnet's kernels compute, and whether they compute it as well as PyTorch does."""

import copy
import importlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

Call = Callable[[Tensor], Any]
TOLERANCE = 1e-4
"""Of a tensor's largest value, against float64."""
ERRORS = ("output", "gradient in training", "gradient in evaluation")
CONVOLUTIONS = {"aten::conv2d", "aten::convolution", "aten::_convolution", "aten::mkldnn_convolution"}
NORMS = {
    *("aten::batch_norm", "aten::_batch_norm_impl_index", "aten::native_batch_norm", "aten::_native_batch_norm_legit"),
    *("aten::_native_batch_norm_legit_functional", "aten::_native_batch_norm_legit_no_training"),
    *("aten::_batch_norm_with_update", "aten::_batch_norm_with_update_functional", "aten::_batch_norm_no_update"),
}
POOLS = {"aten::max_pool2d", "aten::max_pool2d_with_indices", "aten::avg_pool2d"}
LAYERS = (CONVOLUTIONS, NORMS, POOLS)
ELEMENTWISE = (
    *({"aten::relu", "aten::relu_", "aten::clamp_min", "aten::clamp_min_"}, {"aten::silu", "aten::silu_"}),
    *({"aten::hardswish", "aten::hardswish_"}, {"aten::hardtanh", "aten::hardtanh_"}, {"aten::add", "aten::add_"}),
)


def accelerate(model: nn.Module) -> Call:
    """Return the network as this version of sepnet makes it fast."""
    try:
        kernels = importlib.import_module("sepnet.kernels")
        before_the_backend: Call = kernels.accelerate(model)
    except (ImportError, AttributeError):
        from sepnet.backend import backend

        torch._dynamo.reset()
        return torch.compile(model, backend=backend)
    return before_the_backend


def check(model: nn.Module, image_shape: tuple[int, int, int], batch: int) -> dict[str, Any]:
    """Return the verdict, how many operators are replaced and of how many, and the errors against float64.

    The operators counted are those that the kernels are for: as layers, depthwise and pointwise convolutions, batch
    norms and pooling over windows; as elementwise, four activations and sums of two maps. They are counted in
    PyTorch's profile of a forward pass in training: those of the plain network, less those left in the accelerated
    one. Nothing that sepnet says of itself enters.

    The network is wrong if its errors are too large on each of three batches. A ReLU whose input is next to 0 may open
    for one rounding and not for the other, and then a gradient is another: a network whose errors are too large is
    judged again with SiLU in place of ReLU, and is wrong if they are too large there as well.
    """
    images = random_images(0, batch, image_shape)
    model = without_dropout(copy.deepcopy(model).train())
    smooth = without_kinks(copy.deepcopy(model))
    plain = count(model, model, images)
    network = accelerate(model)
    errors = _least_errors(network, model, batch, image_shape)
    left = count(network, model, images)
    if errors["wrong"] and not _least_errors(accelerate(smooth), smooth, batch, image_shape)["wrong"]:
        errors = {**errors, "reason": f"right with SiLU in place of ReLU; else {errors['wrong']}", "wrong": ""}
    replaced = {kind: plain[kind] - left[kind] for kind in plain}
    if errors["wrong"]:
        verdict = "wrong"
    elif not any(plain.values()):
        verdict = "nothing to replace"
    else:
        verdict = "whole" if not any(left.values()) else "part" if any(replaced.values()) else "not"
    return {"verdict": verdict, **{kind: [replaced[kind], plain[kind]] for kind in plain}, **errors}


def _least_errors(network: Call, model: nn.Module, batch: int, image_shape: tuple[int, int, int]) -> dict[str, Any]:
    """Return the errors on the first of three batches that are not too large; those on the last, if all are."""
    for seed in range(3):
        errors = compare(network, model, random_images(seed, batch, image_shape))
        if not errors["wrong"]:
            break
    return errors


def without_kinks(model: nn.Module) -> nn.Module:
    """Put SiLU in place of ReLU and ReLU6."""
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU | nn.ReLU6):
                setattr(module, name, nn.SiLU())
    return model


def random_images(seed: int, batch: int, image_shape: tuple[int, int, int]) -> Tensor:
    return torch.randn(batch, *image_shape, generator=torch.Generator().manual_seed(seed))


def without_dropout(model: nn.Module) -> nn.Module:
    """Masks differ: those of the kernels are not PyTorch's."""
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
    return model


def count(network: Call, model: nn.Module, images: Tensor) -> dict[str, int]:
    """Return how many operators that the kernels are for PyTorch computes in a forward pass, by kind."""
    state = copy.deepcopy(model.state_dict())
    network(images)  # compiled now, if it is to be
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as recorded:
        network(images)
    model.load_state_dict(state)
    events = list(recorded.events())
    layers = [event for event in events if _is_in(event, LAYERS) and _is_narrow(event)]
    elementwise = [event for event in events if _is_in(event, ELEMENTWISE) and _is_of_maps(event)]
    return {"layers": len(layers), "elementwise": len(elementwise)}


def _is_in(event: Any, families: Sequence[set[str]]) -> bool:
    """Say whether an operator is of one of the families, and not called by another of that family."""
    parent = None if event.cpu_parent is None else event.cpu_parent.name
    return any(event.name in family and parent not in family for family in families)


def _is_narrow(event: Any) -> bool:
    """Say whether a convolution is depthwise or pointwise; all other layers are."""
    if event.name not in CONVOLUTIONS:
        return True
    image, weight = event.input_shapes[:2]
    if len(image) != 4 or len(weight) != 4:
        return False
    depthwise = weight[1] == 1 and weight[0] == image[1] > 1
    return bool(depthwise or (weight[1] == image[1] and list(weight[2:]) == [1, 1]))


def _is_of_maps(event: Any) -> bool:
    """Say whether the operands are images ``(N, C, H, W)``, of one size if there are two."""
    shapes = event.input_shapes[:2] if event.name in ELEMENTWISE[-1] else event.input_shapes[:1]
    return all(len(shape) == 4 for shape in shapes) and shapes[0] == shapes[-1]


def compare(network: Call, model: nn.Module, images: Tensor) -> dict[str, Any]:
    """Compare two steps of training, one in evaluation mode, and inference, with PyTorch's and with float64.

    An error is the largest difference in a tensor, as a share of its largest value. Through batch norms of few values,
    gradients in training are ill-conditioned, in PyTorch's float32 as well; those in evaluation mode are not.
    """
    plain, exact = copy.deepcopy(model), copy.deepcopy(model).double()
    found: dict[str, Any] = {kind: [0.0, 0.0] for kind in ERRORS}
    found["wrong"] = ""
    for training, by_gradients in ((True, True), (True, True), (False, True), (False, False)):
        for part in (model, plain, exact):
            part.train(training)
        own = run(network, model, images, by_gradients)
        by_pytorch = run(plain, plain, images, by_gradients)
        right = run(exact, exact, images.double(), by_gradients)
        if not own.keys() == by_pytorch.keys() == right.keys():
            found["wrong"] = f"tensors: {sorted(own.keys() ^ right.keys())[:3]}"
            return found
        largest = max([float(t.abs().max()) for name, t in right.items() if "gradient" in name], default=0.0)
        for name, tensor in right.items():
            if not tensor.numel() or not tensor.is_floating_point():
                continue
            kind = ERRORS[0] if "gradient" not in name else ERRORS[1] if training else ERRORS[2]
            scale = max(float(tensor.abs().max()), 1e-2 * largest if "gradient" in name else 1e-2)
            ours, theirs = (float((t[name].double() - tensor).abs().max()) / scale for t in (own, by_pytorch))
            found[kind] = [max(found[kind][0], ours), max(found[kind][1], theirs)]
            if own[name].shape != tensor.shape or not ours <= max(TOLERANCE, 16 * theirs):
                found["wrong"] = found["wrong"] or f"{name}: {ours:.1e}, PyTorch {theirs:.1e}"
    model.train()
    return found


def run(network: Call, model: nn.Module, images: Tensor, by_gradients: bool) -> dict[str, Tensor]:
    """Return outputs, buffers and, if asked for, the gradients by the images and every parameter."""
    torch.manual_seed(5)
    model.zero_grad()
    images = images.clone().requires_grad_(by_gradients)
    with torch.set_grad_enabled(by_gradients):
        found = {f"output {index}": tensor for index, tensor in enumerate(_tensors(network(images)))}
    if by_gradients:
        generator = torch.Generator().manual_seed(1)
        weighted = [
            (t.double() * torch.randn(t.shape, generator=generator, dtype=torch.float64)).sum() for t in found.values()
        ]
        torch.stack(weighted).sum().backward()
        gradients = {f"gradient by {name}": parameter.grad for name, parameter in model.named_parameters()}
        gradients["gradient by images"] = images.grad
        found |= {name: gradient.clone() for name, gradient in gradients.items() if gradient is not None}
    found = {name: tensor.detach() for name, tensor in found.items()}
    return found | {name: buffer.clone() for name, buffer in model.named_buffers()}


def _tensors(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    parts = output.values() if isinstance(output, dict) else output if isinstance(output, (list, tuple)) else ()
    return [tensor for part in parts for tensor in _tensors(part)]
