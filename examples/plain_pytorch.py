"""Plain PyTorch, a network of sepnet's and its kernels in one line. Run with "eager" as argument to compare."""

import sys
import time

import torch

from sepnet.networks.champion import champion

model = champion().to(memory_format=torch.channels_last)
if "eager" not in sys.argv:
    model = torch.compile(model, backend="sepnet")
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)
loss_function = torch.nn.CrossEntropyLoss()
images = torch.randn(128, 3, 32, 32).contiguous(memory_format=torch.channels_last)
labels = torch.randint(10, (128,))
seconds = []
for _ in range(12):
    began = time.perf_counter()
    loss = loss_function(model(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    seconds.append(time.perf_counter() - began)
print(f"{128 / sorted(seconds)[len(seconds) // 2]:.0f} images/s")
