"""The formulas of docs/scaling.md, written into it: for models that were not measured, and for one.

A time is a limit, operations / peak or bytes / bandwidth, whichever is larger; what overlaps within
a stage is taken to overlap wholly, and stages follow one another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import Report, newest
from benchmarks.shapes import DOLLY, BenchShape
from kdbench.config.schema import Shape
from kdbench.head.chunked import CHUNK_ELEMENTS
from kdbench.models.size import Size, of_shape

REPEATS = 1
DOCUMENT = Path(__file__).parents[1] / "docs" / "scaling.md"
ACTIVATIONS = 34
"""Bytes of a layer's activations per token and width in 16 bits (Korthikanti et al. 2022,
arXiv:2205.05198, with attention that keeps no matrix): written once and read once."""
WEIGHT_TRAFFIC = 20
"""Bytes a weight of the student's head and chunk: read for the logits and for d(hidden), and its
gradient written, then added to the sum, in float32."""


@dataclass(frozen=True)
class Device:
    """Peak operations and bytes a second, memory, and the links to the host and to its peers."""

    flops: float
    memory_rate: float
    memory: float
    host_rate: float
    peer_rate: float

    def holds(self, size: float) -> bool:
        """With a tenth left for everything else."""
        return size <= 0.9 * self.memory


@dataclass(frozen=True)
class Step:
    """Rows of a global batch, their tokens, and those of the response among them."""

    rows: int
    length: int
    response: int


@dataclass(frozen=True)
class Stage:
    """What one device does in a stage: operations, and bytes of its memory and of both links."""

    flops: float = 0.0
    moved: float = 0.0
    from_host: float = 0.0
    from_peers: float = 0.0

    def bound(self, device: Device) -> tuple[float, str]:
        """The least seconds, and what they are spent on."""
        bounds = {
            "compute": self.flops / device.flops,
            "memory": self.moved / device.memory_rate,
            "host link": self.from_host / device.host_rate,
            "NVLink": self.from_peers / device.peer_rate,
        }
        name = max(bounds, key=lambda key: bounds[key])
        return bounds[name], name


def stages(
    pair: tuple[Size, Size],
    step: Step,
    device: Device,
    *,
    devices: int,
    passes: float,
    chunk: int = CHUNK_ELEMENTS,
) -> dict[str, Stage]:
    """Every stage of a step on one of so many devices that share its rows.

    Bodies run in bf16, the chunk in float32. What one device cannot hold is spread over all.

    Args:
        pair: teacher and student.
        passes: reads and writes of float32 [chunk, V].
        chunk: logits that exist at one time.
    """
    teacher, student = pair
    rows, vocabulary = step.rows / devices, student.vocabulary
    tokens, responses = rows * step.length, rows * step.response
    chunks, apart = max(1.0, responses * vocabulary / chunk), (devices - 1) / devices
    trained = student.body + student.head
    # Replicated: float32 gradients, there and back. Spread: bf16 weights twice, and gradients.
    replicated = device.holds(training_bytes(student))
    exchanged = (8 if replicated else 6) * trained * apart
    gathered = 0 if device.holds(2 * (teacher.body + teacher.head)) else 2 * teacher.body * apart
    prompt, late = step.length - step.response, step.length - step.response / 2
    keys = 4 * student.layers * student.keys * responses * late
    return {
        "student's body, forward + backward": Stage(
            flops=3 * student.forward(step.length / 2) * tokens,
            moved=3 * traffic(student, tokens),
            from_peers=exchanged,
        ),
        "head, matrix products": Stage(
            flops=(6 * student.head + 2 * teacher.head) * responses,
            moved=chunks * (WEIGHT_TRAFFIC * student.head + 2 * teacher.head)
            + 8 * vocabulary * responses,
        ),
        "head, element-wise": Stage(moved=4 * passes * vocabulary * responses),
        "teacher's body, live": Stage(
            flops=teacher.forward(step.length / 2) * tokens,
            moved=traffic(teacher, tokens),
            from_peers=gathered,
        ),
        "teacher from the cache": Stage(
            moved=4 * teacher.width * responses, from_host=2 * teacher.width * responses
        ),
        "sampling": Stage(
            flops=(student.forward(late) + 2 * student.head) * responses
            + student.forward(prompt / 2) * rows * prompt,
            moved=2 * trained * step.response + keys + traffic(student, rows * prompt),
        ),
        "optimiser": Stage(moved=28 * trained / (1 if replicated else devices)),
    }


def traffic(model: Size, tokens: float) -> float:
    """Bytes that a forward pass of the body moves, in 16 bits."""
    return 2 * model.body + 2 * ACTIVATIONS * model.layers * model.width * tokens


def sizes_of(shape: BenchShape) -> tuple[Size, Size]:
    """The teacher and the student of a shape that is measured."""
    teacher, student = (
        of_shape(Shape(**one.model_dump(exclude={"init_std"}), vocabulary=shape.vocabulary))
        for one in (shape.teacher, shape.student)
    )
    return teacher, student


def training_bytes(model: Size) -> int:
    """Weights, gradients and AdamW's moments in float32."""
    return 16 * (model.body + model.head)


def _model(
    layers: int, width: int, heads: int, kv_heads: int, mlp: int, vocabulary: int, gate: bool = True
) -> Size:
    shape = {"heads": heads, "kv_heads": kv_heads, "mlp": mlp, "vocabulary": vocabulary}
    return of_shape(Shape(layers=layers, width=width, gate=gate, **shape))


H100 = Device(flops=989e12, memory_rate=3.35e12, memory=80e9, host_rate=55e9, peer_rate=450e9)
STEP = Step(rows=64, length=512, response=256)
PAIRS = {
    "GPT-2 XL -> GPT-2": (
        _model(48, 1600, 25, 25, 6400, 50_257, gate=False),
        _model(12, 768, 12, 12, 3072, 50_257, gate=False),
    ),
    "Llama-2 7B -> TinyLlama 1.1B": (
        _model(32, 4096, 32, 32, 11_008, 32_000),
        _model(22, 2048, 32, 4, 5632, 32_000),
    ),
    "Llama-3.1 70B -> Llama-3.1 8B": (
        _model(80, 8192, 64, 8, 28_672, 128_256),
        _model(32, 4096, 32, 8, 14_336, 128_256),
    ),
}
EAGER, FUSED = 25, 7
"""Passes of forward KL: as `head` counts them, and with the element-wise kernels joined."""
LARGE_CHUNK = 2**28
ALWAYS = (
    *("student's body, forward + backward", "head, matrix products", "head, element-wise"),
    "optimiser",
)
STEPS = {
    "step, teacher cached": (*ALWAYS, "teacher from the cache"),
    "step, teacher live": (*ALWAYS, "teacher's body, live"),
    "step, on-policy": (*ALWAYS, "teacher's body, live", "sampling"),
}


def measure(report: Report) -> None:
    """Prints both tables, and writes them into the document unless this is a trial."""
    for name, lines in (("computed", computed()), ("measured", measured())):
        print("\n".join(lines))
        if not report.smoke:
            text = replaced(DOCUMENT.read_text(encoding="utf-8"), name, lines)
            DOCUMENT.write_text(text, encoding="utf-8")


def computed() -> list[str]:
    """One column a pair and number of devices."""
    columns = [(pair, devices) for pair in PAIRS.values() for devices in (1, 8)]
    titles = [f"{name}, {number}" for name in PAIRS for number in ("one", "eight")]

    def bounds(passes: float, chunk: int) -> list[dict[str, tuple[float, str]]]:
        found = (stages(p, STEP, H100, devices=n, passes=passes, chunk=chunk) for p, n in columns)
        return [{name: stage.bound(H100) for name, stage in parts.items()} for parts in found]

    every, tuned = bounds(EAGER, CHUNK_ELEMENTS), bounds(FUSED, LARGE_CHUNK)
    rows = {name: [f"{_ms(one[name][0])} {one[name][1]}" for one in every] for name in every[0]}
    for name in ("head, matrix products", "head, element-wise"):
        rows[f"{name}, tuned"] = [f"{_ms(one[name][0])} {one[name][1]}" for one in tuned]
    for title, names in STEPS.items():
        for label, found in ((title, every), (f"{title}, tuned", tuned)):
            rows[f"**{label}**"] = [_ms(sum(one[name][0] for name in names)) for one in found]
    rows["memory: teacher"] = [_room(2 * (t.body + t.head), n) for (t, _), n in columns]
    rows["memory: student trained"] = [_room(training_bytes(s), n) for (_, s), n in columns]
    rows["cache a response token, of fp16 logits"] = [
        f"{2 * t.width / 1e3:.1f} kB, 1/{t.vocabulary / t.width:.0f}" for (t, _), _ in columns
    ]
    return _table(titles, rows)


def measured() -> list[str]:
    """The formulas on the shape of `step`, with the machine's own product and copy as peaks."""
    found, case, responses = newest("step"), f"V={DOLLY.vocabulary}", sum(DOLLY.responses)
    try:
        product = 1e9 * found["step", "machine", "floor", "matmul"]
        copy = 1e9 * found["step", "machine", "floor", "copy"]
        cached, floor = (
            found["step", f"forward-kl cached {case}", who, "seconds"]
            for who in ("kdbench", "floor")
        )
        live = found["step", f"forward-kl live {case}", "kdbench", "seconds"]
        passes = found["head", f"forward-kl {case} tokens={responses}", "kdbench", "passes"]
        kept = found["teacher-cache", case, "kdbench", "bytes_per_token"]
    except KeyError as missing:
        return [f"Not measured yet ({', '.join(missing.args[0])})."]
    teacher, student = sizes_of(DOLLY)
    lengths = [sum(pair) for pair in zip(DOLLY.prompts, DOLLY.responses, strict=True)]
    padded = Step(len(lengths), max(lengths), 0)  # rows are padded to the longest
    peak = Device(product, copy, 1.0, 1.0, 1.0)
    parts = stages((teacher, student), padded, peak, devices=1, passes=passes)
    bodies = parts["student's body, forward + backward"].flops
    products = (6 * student.head + 2 * teacher.head) * responses
    figures = {
        "floor: student's body + products": ((bodies + products) / product, floor, "s"),
        "teacher's body: live less cached": (
            parts["teacher's body, live"].flops / product, live - cached, "s"
        ),
        "element-wise: cached less floor": (
            4 * passes * DOLLY.vocabulary * responses / copy, cached - floor, "s"
        ),
        "cache a response token": (4 * teacher.width, kept, "B"),
    }  # fmt: skip
    rows = {
        name: [f"{formula:.4g} {unit}", f"{value:.4g} {unit}", f"{value / formula:.2f}"]
        for name, (formula, value, unit) in figures.items()
    }
    peaks = f"{product / 1e9:.0f} GFLOP/s and {copy / 1e9:.1f} GB/s"
    note = f"Peaks: {peaks}, measured beside them; {passes:.0f} passes."
    return [*_table(["formula", "measured", "measured / formula"], rows), "", note]


def replaced(text: str, name: str, lines: Sequence[str]) -> str:
    """A document with what stands between two marks replaced."""
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    before, found, rest = text.partition(begin)
    after = rest.partition(end)
    if not (found and after[1]):
        raise ValueError(f"the marks of '{name}' are missing")
    return before + begin + "\n".join(lines) + "\n" + end + after[2]


def _table(titles: Sequence[str], rows: Mapping[str, Sequence[str]]) -> list[str]:
    lines = [["", *titles], ["---"] * (1 + len(titles))]
    lines += [[name, *row] for name, row in rows.items()]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _room(size: float, devices: int) -> str:
    if H100.holds(size):
        return f"{size / 1e9:.3g} GB"
    fits = devices > 1 and H100.holds(size / devices)
    return f"{size / devices / 1e9:.3g} GB" + (" each" if fits else ": **does not fit**")
