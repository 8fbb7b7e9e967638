"""The benchmarks' arithmetic, their workers, and one small race from end to end."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

import sepnet
from benchmarks import (
    clock,
    depthwise,
    engine_pytorch,
    outline,
    scaling,
    stages,
    stages_pytorch,
    stages_sepnet,
    training,
    wide,
)
from benchmarks.race import ROOT, Lane, Worker, jobs_for, ratios
from benchmarks.tables import figure, markdown
from sepnet.errors import SepnetError
from sepnet.kernels.accelerate import Accelerated
from sepnet.kernels.native import Pool, Stage
from sepnet.networks import build
from sepnet.networks.layers import SeparableConv2d
from tests.cli_support import Captured, prepare
from tests.kernels.support import needs_kernels

SETTINGS: dict[str, Any] = {"batch_size": 16, "image_shape": (3, 32, 32), "classes": 10, "images": 40}


def _without_tensorflow(folder: Path) -> dict[str, str]:
    """Return an environment in which Python finds no TensorFlow, whatever is installed."""
    (folder / "tensorflow.py").write_text("raise ImportError('no TensorFlow here')\n")
    path = os.pathsep.join(filter(None, [str(folder), str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path}


def test_a_race_from_end_to_end(tmp_path: Path) -> None:
    prepare(tmp_path)
    network = f"{tmp_path / 'net.py'}:small"
    options = (
        f"--rounds 3 --seconds 0.01 --networks {network} --engines sepnet,pytorch,keras --batch-size 32 --images 64"
    )
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *options.split(), "--out", str(tmp_path / "new/speed")],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
        cwd=ROOT,
        env=_without_tensorflow(tmp_path),
    )
    record = json.loads((tmp_path / "new/speed/speed.json").read_text())
    assert record["command"] == f"python -m benchmarks {options}", "all that counts, and no place of this machine"
    ours, stock, keras = record["rows"]
    assert [row["engine"] for row in record["rows"]] == ["sepnet", "pytorch", "keras"]
    assert len(ours["rounds"]) == len(stock["rounds"]) == 3
    each = sorted(mine / its for mine, its in zip(ours["rounds"], stock["rounds"], strict=True))
    assert [stock["sepnet_is_faster"][name] for name in ("lowest", "median", "highest")] == pytest.approx(each)
    assert stock["images_per_second"]["median"] == sorted(stock["rounds"])[1]
    assert stock["versions"]["torch"] == torch.__version__
    assert "no TensorFlow here" in keras["missing"]
    assert (keras["images_per_second"], keras["sepnet_is_faster"], keras["rounds"]) == (None, None, [])
    assert record["machine"]["processor"]
    page = (tmp_path / "new/speed/speed.md").read_text()
    assert done.stdout == page
    table = [line for line in page.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in table} == {table[0].count("|")}
    assert "Keras on TensorFlow (missing)" in table[-1]
    assert "no TensorFlow here" in done.stderr


def test_ratios_are_of_each_round() -> None:
    ours, theirs = Lane(engine="sepnet", rates=[10.0, 20.0, 90.0]), Lane(engine="pytorch", rates=[5.0, 20.0, 30.0])
    assert ratios(ours, theirs) == {"median": 2.0, "lowest": 1.0, "highest": 3.0}
    assert ratios(ours, Lane(engine="keras", missing="not here")) is None


def test_peers_get_the_recipes_optimizer() -> None:
    kinds = {name: jobs_for(name, ["pytorch"], **SETTINGS)["pytorch"]["optimizer"] for name in ("base", "champion")}
    assert kinds["champion"]["kind"] == "muon", "which the peers do not have: they take SGD"
    model = torch.nn.Linear(2, 2)
    adam = engine_pytorch.build_optimizer(model, kinds["base"])
    sgd = engine_pytorch.build_optimizer(model, kinds["champion"])
    assert isinstance(adam, torch.optim.Adam)
    assert isinstance(sgd, torch.optim.SGD)
    assert sgd.defaults["nesterov"]
    assert adam.defaults["eps"] == 1e-7, "Keras's"


def test_what_keras_cannot_express_is_missing_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "rms.py").write_text(
        "from torch import nn\n\n\ndef net():\n    return nn.Sequential(nn.Flatten(), nn.RMSNorm(3072))\n"
    )
    jobs = jobs_for(f"{tmp_path / 'rms.py'}:net", ["pytorch", "keras"], **SETTINGS)
    assert "RMSNorm" in jobs["keras"]["missing"]
    assert "missing" not in jobs["pytorch"]


def test_stock_pytorch_takes_whole_steps_and_epochs() -> None:
    job = jobs_for("champion", ["pytorch"], **SETTINGS)["pytorch"]
    with torch.random.fork_rng():
        engine = engine_pytorch.prepare(job)
        images, seconds = engine.commands["turn"](seconds=0.0)
        assert images == 16, "one step after the one that is not timed"
        assert seconds > 0
        assert engine.commands["epoch"]()[0] == 40, "the smaller batch at the end included"


def test_a_worker_that_fails_is_named() -> None:
    job = {**jobs_for("base", ["pytorch"], **SETTINGS)["pytorch"], "network": "no-such-network"}
    with (
        Worker("pytorch", sys.executable) as worker,
        pytest.raises(SepnetError, match=r"PyTorch as it comes ended with 1: .*no-such-network"),
    ):
        worker.ask(**job)
    with pytest.raises(SepnetError, match="cannot be run"):
        Worker("keras", str(ROOT / "no-such-python"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--engines sepnet,torch", "unknown engine 'torch'"),
        ("--networks champoin", "did you mean 'champion'"),
    ],
)
def test_a_mistake_is_told(arguments: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments.split()])
    with pytest.raises(SepnetError, match=message):
        training.main()


def test_an_unknown_series_or_shape_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["scaling", "--series", "bach"])
    with pytest.raises(SepnetError, match="did you mean 'batch'"):
        scaling.main()
    monkeypatch.setattr(sys, "argv", ["depthwise", "--shape", "1x2x3"])
    with pytest.raises(SepnetError, match="shape '1x2x3'"):
        depthwise.main()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux's")
def test_peak_memory_is_the_processs_own() -> None:
    code = (
        "from benchmarks.turns import peak_mib\n"
        "before = peak_mib()\n"
        "held = bytearray(b'x') * 2**28\n"
        "print(before, peak_mib())"
    )
    held = bytearray(b"x") * 2**28
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    before, after = map(float, done.stdout.split())
    assert before < 200, f"not that of the process that started it, which holds {len(held)} bytes more"
    assert 250 < after - before < 300


def test_time_per_multiplication() -> None:
    figures = depthwise.picoseconds({"forward": [9e-6], "backward": [36e-6]}, (2, 5, 10, 10), 3)
    assert figures["forward"]["median"] == pytest.approx(1_000)  # 9 µs for 9,000 multiplications
    assert figures["backward"]["median"] == pytest.approx(2_000)  # 36 µs for 18,000


@pytest.mark.parametrize("kernel", depthwise.KERNELS)
def test_depthwise_engines_compute_the_same(kernel: int) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(2, 20, 11, 13), torch.randn(20, 1, kernel, kernel)
    expected = depthwise.stock(x.double(), weight)
    for convolve, dtype in depthwise.engines().values():
        found = convolve(x.to(dtype).contiguous(memory_format=torch.channels_last), weight)
        tolerance = (1e-5 if dtype == torch.float32 else 1e-2) * float(expected.abs().max())
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=tolerance)


def test_depthwise_has_a_row_for_each_engine_and_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    options = f"--rounds 1 --seconds 0.001 --shape 2x16x9x7 --out {tmp_path}"
    monkeypatch.setattr(sys, "argv", ["depthwise", *options.split()])
    with torch.random.fork_rng():
        depthwise.main()
    torch.set_flush_denormal(False)
    record = json.loads((tmp_path / "depthwise.json").read_text())
    assert len(record["rows"]) == len(depthwise.engines()) * len(depthwise.KERNELS) * 2
    assert all(row["picoseconds"]["median"] > 0 for row in record["rows"])
    assert capsys.readouterr().out == (tmp_path / "depthwise.md").read_text()


def test_the_wide_network_of_width_32_is_of_its_weight_class() -> None:
    counts = [sepnet.summary(build()).parameters for build in (wide.width_16, wide.width_32, wide.width_64)]
    assert counts[1] == 93_637
    assert 2 < counts[1] / counts[0] < 4 > counts[2] / counts[1] > 2, "pointwise weights grow with the width's square"


def test_tables() -> None:
    assert markdown(["a", "b"], [["x", "1"]]) == "| a | b |\n| --- | --: |\n| x | 1 |"
    assert [figure(value) for value in (None, 1234.56, 99.94, 1.234)] == ["–", "1,235", "99.9", "1.23"]


STAGED = """
import time

import torch
from torch import nn
from torch import nn

from sepnet.networks.layers import GlobalAveragePool, SeparableConv2d


class Wait(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        time.sleep(0.2)
        return x.clone()

    @staticmethod
    def backward(ctx, slope):
        time.sleep(0.4)
        return slope.clone()


class Slow(nn.Module):
    def forward(self, x):
        return Wait.apply(x)


def net():
    return nn.Sequential(
        *(SeparableConv2d(3, 16), nn.BatchNorm2d(16), nn.ReLU()),
        *(SeparableConv2d(16, 16), nn.ReLU(), nn.BatchNorm2d(16), Slow()),
        *(nn.MaxPool2d(2), nn.Dropout(0.1)),
        *(GlobalAveragePool(), nn.Linear(16, 10)),
    )


def dense():
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
"""


@needs_kernels
@pytest.mark.parametrize(("network", "count"), [("published", 15), ("champion", 13)])
def test_the_stages_do_all_of_the_networks_multiplications(network: str, count: int) -> None:
    *rows, rest = outline.outline(network, image_shape=(3, 32, 32), classes=10, precision="fp32")
    assert len(rows) == count
    assert [row.end for row in rows[-1:]] == [rest.start]
    folded = {"published": 192 * (32 * 32 + 16 * 16 + 4 * 4), "champion": 0}[network]  # 1×1 depthwise layers
    dense = {"published": 10 * 10, "champion": 112 * 10}[network]
    done = {way: sum(row.work[way]["products"] + row.work[way]["depthwise"] for row in rows) for way in outline.WAYS}
    assert done["forward"] == sepnet.summary(network).macs - folded - dense
    assert done["backward"] == 2 * done["forward"] - rows[0].work["forward"]["depthwise"], "images need no gradient"
    assert all(row.work[way]["bytes"] > 0 for row in rows for way in outline.WAYS)


@needs_kernels
@pytest.mark.parametrize("activation", [nn.ReLU, nn.SiLU, nn.Hardswish])
def test_a_stage_is_called_by_its_activation(activation: type[nn.Module]) -> None:
    model = nn.Sequential(SeparableConv2d(3, 16), nn.BatchNorm2d(16), activation(), SeparableConv2d(16, 16))
    plan = Accelerated(model).plan()
    assert plan is not None
    first = outline.rows_of(plan)[0]
    assert outline._title(first, plan.modules) == f"separable 3×3, batch norm, {activation.__name__}"


def test_least_work_of_a_stage_and_of_pooling() -> None:
    x, y = 10 * 12 * 3, 5 * 6 * 20
    sizes = {"height": 10, "width": 12, "channels": 3, "out_height": 5, "out_width": 6, "out_channels": 20}
    sizes |= {"images": 7, "kernel_rows": 3, "kernel_columns": 5}
    here = dict.fromkeys(("x", "depthwise", "pointwise", "y", "sums", "middle"), 1)
    given = Stage(**sizes, **here)
    deep, wide = 5 * 6 * 3 * 15, 5 * 6 * 3 * 20
    expected = {"products": wide, "depthwise": deep, "bytes": 2 * (x + 5 * 6 * 3 + y)}
    assert outline.work(given, "forward", 2) == expected
    slopes = Stage(**sizes, **here, grad_y=1, grad_sums=1, grad_x=1)
    expected = {"products": 2 * wide, "depthwise": 2 * deep, "bytes": 4 * (x + 5 * 6 * 3 + 2 * y + x)}
    assert outline.work(slopes, "backward", 4) == expected
    of_images = Stage(**sizes, **here, grad_y=1)
    expected = {"products": 2 * wide, "depthwise": deep, "bytes": 4 * (x + 5 * 6 * 3 + y)}
    assert outline.work(of_images, "backward", 4) == expected, "no gradient of the images, no batch norm behind"
    pooled = Pool(Stage(**sizes | {"out_channels": 3}, x=1, y=1, grad_y=1, grad_x=1), 2, 2, average=False)
    assert outline.work(pooled, "forward", 4) == {"bytes": 4 * (x + 5 * 6 * 3)}
    assert outline.work(pooled, "backward", 4) == {"bytes": 4 * (5 * 6 * 3 + 2 * x)}
    pooled.average = True
    assert outline.work(pooled, "backward", 4) == {"bytes": 4 * (5 * 6 * 3 + x)}, "a mean's gradient needs no image"


def test_the_limit_of_a_stage_and_its_share() -> None:
    rates = {"bf16": 400e9, "fp32": 100e9, "copy": 20e9}
    least = stages.limit({"products": 2_000_000, "depthwise": 1_000_000, "bytes": 500_000}, "bf16", rates)
    assert least == pytest.approx({"arithmetic": 30e-6, "memory": 25e-6})
    ms = {
        "before": {"forward": 10, "backward": 20},
        "after": {"forward": 4, "backward": None},
        "limit": {"forward": 1, "backward": 2},
    }
    shares = stages.shares([{"ms": ms}])
    assert shares["before"] == pytest.approx({"forward": 0.1, "backward": 0.1, "both": 0.1})
    assert shares["after"] == {"forward": 0.25, "backward": None, "both": 0.25}, "of what was measured"


@needs_kernels
@pytest.mark.parametrize("worker", [stages_pytorch, stages_sepnet])
def test_seconds_count_in_the_row_that_takes_them(worker: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(STAGED)
    job = jobs_for(f"{tmp_path / 'net.py'}:net", ["pytorch"], **SETTINGS)["pytorch"]
    with torch.random.fork_rng():
        engine = worker.prepare(job)
        engine.commands["turn"](steps=1, counts=True)
    torch.set_flush_denormal(False)
    names = ["loading", *(f"{way} {row}" for row in range(4) for way in outline.WAYS), "optimizer", clock.BETWEEN]
    seconds = {name: engine.commands["part"](name)[1] for name in names}
    assert sum(seconds.values()) == pytest.approx(engine.commands["part"](clock.WHOLE)[1]), "no second is lost"
    assert min(seconds.values()) > 0
    slow = {"forward 1": 0.2, "backward 1": 0.4} if worker is stages_pytorch else {clock.BETWEEN: 0.6}
    for name, waited in slow.items():
        assert seconds.pop(name) > waited
    assert max(seconds.values()) < 0.2, seconds


def test_stock_pytorch_computes_the_same_row_by_row(tmp_path: Path) -> None:
    model = build("champion").train()
    plan = Accelerated(model).plan()
    assert plan is not None
    rows = {node: n for n, row in enumerate(outline.rows_of(plan)) for step in row for node in outline.nodes_of(step)}
    assert set(plan.followed.graph.nodes) - set(rows) == {next(iter(plan.followed.graph.nodes))}, "all but the images"
    images = torch.rand(4, 3, 32, 32)
    network = stages_pytorch.Marked(model, plan.followed.graph, rows, clock.Clock())
    found = []
    for compute in (model, network.run):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model.zero_grad()
            compute(images).square().sum().backward()
            found.append([parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None])
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


@needs_kernels
def test_a_table_of_stages_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    for name, value in {"STEPS": 1, "PRODUCTS": (32, 64), "COPY_MIB": 1}.items():
        monkeypatch.setattr(stages, name, value)
    options = "--network published --batch-size 4 --repeats 1"
    monkeypatch.setattr(sys, "argv", ["stages", *options.split(), "--out", str(tmp_path)])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
    stages.main()
    record = json.loads((tmp_path / "stages-published.json").read_text())
    assert record["command"] == f"python -m benchmarks.stages {options}"
    first, *_, last = record["stages"]
    assert (first["stage"], first["input"], first["output"]) == (
        "separable 3×3, ReLU, batch norm",
        [3, 32, 32],
        [48, 32, 32],
    )
    assert (last["stage"], last["input"], last["output"]) == ("separable 1×1", [192, 4, 4], [10, 4, 4])
    assert first["work"]["forward"]["products"] == 4 * 32 * 32 * 3 * 48
    for stage in record["stages"]:
        assert all(value > 0 for times in stage["ms"].values() for value in times.values())
    best = record["best_rates"]
    assert best["copy"] == record["rates"]["copy"]
    assert best["fp32"] == max(record["rates"]["fp32 32"], record["rates"]["fp32 64"])
    for side in ("before", "after"):
        *parts, whole = (part[side] for part in record["step"])
        assert sum(parts) == pytest.approx(whole), "one step counts, so that medians add up"
    page = (tmp_path / "stages-published.md").read_text()
    assert capsys.readouterr().out == page
    tables = [
        [line.count("|") for line in page.splitlines() if line.startswith("|") and wide == (line.count("|") > 9)]
        for wide in (True, False)
    ]
    assert [(len(table), len(set(table))) for table in tables] == [(18, 1), (10, 1)]
    assert "\n| 5. max pool 2×2, dropout | 32×32×32 → 32×16×16 | " in page


def test_a_network_without_stages_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.py").write_text(STAGED)
    monkeypatch.setattr(sys, "argv", ["stages", "--network", f"{tmp_path / 'net.py'}:dense", "--out", str(tmp_path)])
    with pytest.raises(SepnetError, match="no stages to compare: it is computed by PyTorch alone"):
        stages.main()
    assert [path.name for path in tmp_path.iterdir() if path.suffix in (".md", ".json")] == []
