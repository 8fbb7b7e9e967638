"""A Dask cluster of processes: killed workers and coordinators, and workers that are refused."""

import random
from pathlib import Path

import pytest

from sepnet import __version__
from sepnet.cli.app import run
from sepnet.errors import SepnetError
from sepnet.sweep import cluster
from sepnet.sweep.plan import read_plan
from tests.cli_support import Captured
from tests.faults import sweep_kills
from tests.sweep.support import prepare, undisturbed

pytestmark = pytest.mark.usefixtures("pytorch_alone")


@pytest.mark.slow
def test_killed_workers_and_coordinators_change_no_result(tmp_path: Path) -> None:
    file = sweep_kills.sweep_of(tmp_path, trials=4, epochs=3)
    undisturbed(file, tmp_path / "undisturbed")
    with sweep_kills.cluster(tmp_path, workers=2) as address:
        draw = random.Random(1)
        sweep_kills.disturb(file, tmp_path / "disturbed", address, trials=4, workers=1, coordinators=1, draw=draw)
    assert sweep_kills.faults(file, tmp_path / "disturbed", tmp_path / "undisturbed", 4) == []


def test_a_worker_of_another_version_is_refused_by_its_address() -> None:
    with pytest.raises(SepnetError, match=r"worker tcp://b has sepnet 0\.0\.9, this is .*: install the same"):
        cluster._require_version({"tcp://a": __version__, "tcp://b": "0.0.9"})


def test_what_workers_elsewhere_need_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(tmp_path / "in")
    (tmp_path / "in/neighbour.py").write_text("A = 1\n")
    monkeypatch.chdir(tmp_path)
    assert set(cluster.sources_of(read_plan(Path("in/sweep.toml")))) == {
        "in/net.py",
        "in/neighbour.py",
        "in/quick.toml",
    }
    monkeypatch.chdir(tmp_path / "in")
    assert set(cluster.sources_of(read_plan(Path("../in/sweep.toml")))) == set()


MISTAKES = {
    "workers too": (["--cluster", "tcp://127.0.0.1:1", "--workers", "2"], "workers and cluster are both given"),
    "no file": (["--cluster", "missing.toml"], "cluster file 'missing.toml' does not exist"),
    "no class": (["--cluster", "none.toml"], "kind 'nowhere.Cluster' cannot be imported"),
    "an option": (["--cluster", "option.toml"], "'subprocess.Popen' cannot be started"),
    "a key": (["--cluster", "key.toml"], "unknown key 'cores'"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(mistake: str, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments, message = MISTAKES[mistake]
    file = prepare(tmp_path)
    monkeypatch.chdir(tmp_path)
    Path("none.toml").write_text('kind = "nowhere.Cluster"\nworkers = 1\n')
    Path("option.toml").write_text('kind = "subprocess.Popen"\nworkers = 1\noptions = { no_such = 1 }\n')
    Path("key.toml").write_text('kind = "a.B"\nworkers = 1\ncores = 3\n')
    assert run(["sweep", str(file), *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1
