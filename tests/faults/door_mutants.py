"""Damage exported files and pictures at random and let commands read them: ``python -m tests.faults.door_mutants``.

A damaged model file has to be refused in one line with exit code 2. A damaged picture may be refused so, or be
a picture still. ``data check`` has to look through all of them in one call, and to name those that cannot be read.
"""

import argparse
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.export.exported_support import CLASSES, SHAPE, write_files
from tests.faults.mutants import FAILURES, Mutant
from tests.faults.scene import call, is_refusal

MODELS = ("keras", "onnx-int8", "tflite")
PICTURES = {"png": {}, "jpg": {}, "gif": {}, "bmp": {}, "webp": {}, "tiff": {"compression": "tiff_lzw"}, "ppm": {}}
"""Endings, and how Pillow writes such a file."""


def _flip(content: bytearray, draw: random.Random) -> bytes:
    for _ in range(draw.choice([1, 1, 20])):
        place = draw.randrange(8 * len(content))
        content[place // 8] ^= 1 << place % 8
    return bytes(content)


def _cut(content: bytearray, draw: random.Random) -> bytes:
    return bytes(content[: draw.choice([0, 4, draw.randrange(len(content))])])


def _zero(content: bytearray, draw: random.Random) -> bytes:
    start = draw.randrange(len(content))
    length = min(draw.choice([4, 64, 512]), len(content) - start)
    content[start : start + length] = b"\xff" * length if draw.random() < 0.3 else bytes(length)
    return bytes(content)


def _insert(content: bytearray, draw: random.Random) -> bytes:
    place = draw.choice([0, len(content), draw.randrange(len(content))])
    return bytes(content[:place]) + draw.randbytes(draw.choice([1, 100])) + bytes(content[place:])


def _repeat(content: bytearray, draw: random.Random) -> bytes:
    start, end = sorted(draw.randrange(len(content)) for _ in range(2))
    return bytes(content[:end] + content[start:])


def _noise(content: bytearray, draw: random.Random) -> bytes:
    head = draw.choice([0, 8, 64])
    return bytes(content[:head]) + draw.randbytes(len(content) - head)


Damage = Callable[[bytearray, random.Random], bytes]
KINDS: dict[str, Damage] = {
    "bits flipped": _flip,
    "cut off": _cut,
    "bytes overwritten": _zero,
    "bytes inserted": _insert,
    "a part repeated": _repeat,
    "noise behind the head": _noise,
}


def model_mutants(folder: Path, count: int, seed: int) -> Iterator[Mutant]:
    """Yield so many damaged model files, all kinds and formats in turn, and what ``predict`` made of them."""
    draw = random.Random(seed)
    models = folder / "models"
    models.mkdir()
    files = write_files(models, MODELS)
    picture = folder / "picture.png"
    _picture(0).save(picture)
    contents = {form: file.read_bytes() for form, file in files.items()}
    for number in range(count):
        form, kind = MODELS[number % len(MODELS)], list(KINDS)[number // len(MODELS) % len(KINDS)]
        damaged = KINDS[kind](bytearray(contents[form]), draw)
        files[form].write_bytes(damaged)
        code, _, errors = call(f"predict {files[form]} {picture} --format json")
        yield Mutant(kind, form, _judge(code, errors, fine=damaged == contents[form]), _last(code, errors))


def picture_mutants(folder: Path, count: int, seed: int) -> Iterator[Mutant]:
    """Yield so many damaged pictures and what ``predict`` made of them, and last ``data check`` of all of them."""
    draw = random.Random(seed)
    model = write_files(folder, ("tflite",))["tflite"]
    data = folder / "pictures"
    readable = 0
    for number in range(count):
        ending, kind = list(PICTURES)[number % len(PICTURES)], list(KINDS)[number // len(PICTURES) % len(KINDS)]
        file = data / CLASSES[number % 2] / f"{number}.{ending}"
        file.parent.mkdir(parents=True, exist_ok=True)
        _picture(number).save(file, **PICTURES[ending])
        file.write_bytes(KINDS[kind](bytearray(file.read_bytes()), draw))
        code, _, errors = call(f"predict {model} {file} --format json")
        readable += code == 0
        yield Mutant(kind, "predict", _judge(code, errors, fine=True), f"{file.name}: {_last(code, errors)}")
    code, printed, errors = call(f"data check {data} --image-size 12x10 --format json")
    found = json.loads(printed) if code in (0, 1) else {}
    broken = sum(len(one["cases"]) for one in found.get("findings", []) if one["kind"] == "broken")
    judgement = "right" if code in (0, 1) and broken == count - readable else "wrong"
    yield Mutant("all", "data check", judgement, f"{broken} broken of {count}, {readable} readable, exit {code}")


def _picture(number: int) -> Image.Image:
    channels, height, width = SHAPE
    pixels = np.random.default_rng(number).integers(0, 256, (height + number % 5, width, channels), np.uint8)
    return Image.fromarray(pixels)


def _judge(code: int | str, errors: list[str], *, fine: bool) -> str:
    if code == "hung":
        return "hung"
    if code == 0:
        return "right" if fine else "wrong"
    return "refused" if is_refusal(code, errors) else "traceback"


def _last(code: int | str, errors: list[str]) -> str:
    return f"{code}: {errors[-1] if errors else ''}"


def main() -> int:
    """Print how often each judgement was reached, and each failure; return 1 if there was one."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.door_mutants", description=__doc__)
    parser.add_argument("--models", type=int, default=100)
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        works: dict[str, Any] = {
            "model files": model_mutants(Path(folder), arguments.models, arguments.seed),
            "pictures": picture_mutants(Path(folder), arguments.pictures, arguments.seed),
        }
        for name, found in works.items():
            mutants = list(found)
            print(name, dict(Counter((mutant.command, mutant.judgement) for mutant in mutants)))
            for mutant in mutants:
                if mutant.judgement in FAILURES or mutant.kind == "all":
                    print(" | ".join(mutant), file=sys.stderr)
            failed = failed or any(mutant.judgement in FAILURES for mutant in mutants)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
