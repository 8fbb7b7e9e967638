"""A network of one's own: look at it, check it, train it, use it.

``python own_network.py EPOCHS`` trains on the sample of CIFAR-10 that comes with sepnet, for two epochs by default;
``sepnet check own_network.py:mine`` and the other commands take the network by this name.
"""

import sys

from torch import nn

import sepnet
from sepnet.networks.layers import GlobalAveragePool, Residual, SeparableConv2d


def block(inputs: int, outputs: int) -> list[nn.Module]:
    """Return a separable convolution, batch norm and ReLU."""
    return [SeparableConv2d(inputs, outputs), nn.BatchNorm2d(outputs), nn.ReLU()]


def mine(classes: int = 10) -> nn.Module:
    """Return a small residual network of separable convolutions, for images ``(N, 3, H, W)``."""
    return nn.Sequential(
        *block(3, 32),
        nn.MaxPool2d(2),
        *block(32, 64),
        Residual(nn.Sequential(*block(64, 64))),
        nn.MaxPool2d(2),
        nn.Dropout(0.1),
        *block(64, 128),
        GlobalAveragePool(),
        nn.Linear(128, classes),
    )


if __name__ == "__main__":
    epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    print(sepnet.summary(mine()))
    print(sepnet.check(mine()))
    run = sepnet.train(mine, "sample", epochs=epochs)
    print(sepnet.evaluate(run))
