"""The networks of the table: a public model zoo's, and those written down here."""

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from . import idioms, more_idioms

ZOO = "pytorchcv"
ZOO_VERSION = "0.0.74"
INSTALL = f"pip install --no-deps {ZOO}=={ZOO_VERSION}"
"""Without its dependencies: of torchvision, which it asks for, no classifier here makes use."""

WRITTEN_DOWN: dict[str, Callable[[], nn.Module]] = {
    "TutorialLeNet": idioms.TutorialLeNet,
    "ResNet": idioms.ResNet,
    "PreActResNet": idioms.PreActResNet,
    "MobileNetV2": idioms.MobileNetV2,
    "MobileNetV3": idioms.MobileNetV3,
    "ScriptingBranches": idioms.ScriptingBranches,
    "Inception": idioms.Inception,
    "ConvNeXt": idioms.ConvNeXt,
    "VGG": idioms.vgg,
    "StochasticDepth": idioms.StochasticDepth,
    "ConvMixer": more_idioms.conv_mixer,
    "StarNet": more_idioms.star_net,
    "SpeedrunNet": more_idioms.SpeedrunNet,
    "DenseNet": more_idioms.DenseNet,
    "DenseNetOfLists": more_idioms.DenseNetOfLists,
    "ShuffleNet": more_idioms.shuffle_net,
    "SENet": more_idioms.SENet,
    "RepVGG": more_idioms.rep_vgg,
    "Recurrent": more_idioms.Recurrent,
    "Decorated": more_idioms.Decorated,
    "Subclass": more_idioms.Subclass,
    "ScriptedChild": more_idioms.scripted_child,
}
FROM_ZOO = """
    nin_cifar.nin_cifar10 resnet_cifar.resnet20_cifar10 preresnet_cifar.preresnet20_cifar10
    seresnet_cifar.seresnet20_cifar10 sepreresnet_cifar.sepreresnet20_cifar10 resnext_cifar.resnext20_32x2d_cifar10
    densenet_cifar.densenet40_k12_bc_cifar10 xdensenet_cifar.xdensenet40_2_k24_bc_cifar10
    pyramidnet_cifar.pyramidnet110_a48_cifar10 wrn_cifar.wrn16_10_cifar10 ror_cifar.ror3_56_cifar10
    diaresnet_cifar.diaresnet20_cifar10 resdropresnet_cifar.resdropresnet20_cifar10
    shakedropresnet_cifar.shakedropresnet20_cifar10 shakeshakeresnet_cifar.shakeshakeresnet20_2x16d_cifar10
    mobilenet.mobilenet_wd4 mobilenetb.mobilenetb_wd4 fdmobilenet.fdmobilenet_wd4 mobilenetv2.mobilenetv2_wd4
    mobilenetv3.mobilenetv3_small_w7d20 mnasnet.mnasnet_small fbnet.fbnet_cb proxylessnas.proxylessnas_cpu
    spnasnet.spnasnet efficientnet.efficientnet_b0 mixnet.mixnet_s ghostnet.ghostnet igcv3.igcv3_wd4
    shufflenet.shufflenet_g1_wd4 shufflenetv2.shufflenetv2_wd2 menet.menet108_8x1_g3 dicenet.dicenet_wd5
    espnetv2.espnetv2_wd2 channelnet.channelnet squeezenet.squeezenet_v1_1 squeezenext.sqnxt23_w1
    darknet.darknet_tiny peleenet.peleenet hardnet.hardnet39ds condensenet.condensenet74_c8_g8 vovnet.vovnet27s
    resnet.resnet18_wd4 resneta.resneta10 resnext.resnext14_16x4d resnesta.resnestabc14 bamresnet.bam_resnet18
    cbamresnet.cbam_resnet18 sknet.sknet50 ibnresnet.ibn_resnet50 sharesnet.sharesnet18 octresnet.octresnet10_ad2
    diracnetv2.diracnet18v2 tresnet.tresnet_m regnet.regnetx002 regnet.regnety002 dla.dla46xc dpn.dpn68
    bagnet.bagnet9 bninception.bninception inceptionv3.inceptionv3 xception.xception hrnet.hrnet_w18_small_v1
    darts.darts
"""
"""Module and function: one network a family, the smallest that it has."""
CIFAR, IMAGENET = (3, 32, 32), (3, 96, 96)
WINDOWS_OF_224 = {7, 8, 10, 13, 14, 27}


@dataclass(frozen=True)
class Network:
    """How a network is made, its image ``(C, H, W)``, and how many images a step is checked with."""

    source: str
    build: Callable[[], nn.Module]
    image: tuple[int, int, int]
    batch: int


def networks() -> dict[str, Network]:
    """Return the catalogue by name."""
    found = {name: Network("written down", build, CIFAR, 4) for name, build in WRITTEN_DOWN.items()}
    for path in FROM_ZOO.split():
        module, name = path.split(".")
        small = name.endswith("_cifar10")
        found[name] = Network(ZOO, _Builder(module, name, small), CIFAR if small else IMAGENET, 4 if small else 2)
    return found


def zoo_is_installed() -> bool:
    """Say whether the zoo's networks can be made."""
    return importlib.util.find_spec(ZOO) is not None


@dataclass(frozen=True)
class _Builder:
    module: str
    name: str
    small: bool

    def __call__(self) -> nn.Module:
        made: nn.Module = getattr(importlib.import_module(f"{ZOO}.models.{self.module}"), self.name)()
        return made if self.small else of_any_size(made)


def of_any_size(model: nn.Module) -> nn.Module:
    """Let the last pooling, whose window is the last map of an image of 224 pixels, be global: smaller ones do then."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.AvgPool2d) and child.kernel_size in WINDOWS_OF_224:
                setattr(parent, name, nn.AdaptiveAvgPool2d(1))
    return model
