"""Operations and bytes of every stage of a step: the formulas of docs/scaling.md as code.

A time is a limit, operations / peak or bytes / bandwidth, whichever is larger; what overlaps within
a stage is taken to overlap wholly, and stages follow one another.
"""

from dataclasses import dataclass

from kdbench.head.chunked import CHUNK_ELEMENTS

ACTIVATIONS = 34
"""Bytes of a layer's activations per token and width in 16 bits (Korthikanti et al. 2022,
arXiv:2205.05198, with attention that keeps no matrix): written once and read once."""
WEIGHT_TRAFFIC = 20
"""Bytes a weight of the student's head and chunk: read for the logits and for d(hidden), and its
gradient written, then added to the sum, in float32."""


@dataclass(frozen=True)
class Transformer:
    """A decoder; `matrices` of [width, mlp] in a layer: 3 with a gate, 2 without."""

    name: str
    layers: int
    width: int
    mlp: int
    matrices: int
    kv_width: int
    vocabulary: int
    query_width: int = 0
    """Heads times their dimension where that is not `width`, as in Qwen3."""

    @property
    def attention(self) -> int:
        """Width of all queries together."""
        return self.query_width or self.width

    @property
    def body(self) -> int:
        """Parameters of the layers' matrices."""
        attention = 2 * self.width * (self.attention + self.kv_width)
        return self.layers * (attention + self.matrices * self.width * self.mlp)

    @property
    def head(self) -> int:
        """Parameters of the output head; as many again where embeddings are not tied to it."""
        return self.vocabulary * self.width

    def forward(self, context: float) -> float:
        """Operations of the body per token that looks at `context` positions."""
        return 2 * self.body + 4 * self.layers * self.attention * context

    def traffic(self, tokens: float) -> float:
        """Bytes that a forward pass of the body moves, in 16 bits."""
        return 2 * self.body + 2 * ACTIVATIONS * self.layers * self.width * tokens


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
    teacher: Transformer,
    student: Transformer,
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
        passes: reads and writes of float32 [chunk, V].
        chunk: logits that exist at one time.
    """
    rows, vocabulary = step.rows / devices, student.vocabulary
    tokens, responses = rows * step.length, rows * step.response
    chunks, apart = max(1.0, responses * vocabulary / chunk), (devices - 1) / devices
    trained = student.body + student.head
    # Replicated: float32 gradients, there and back. Spread: bf16 weights twice, and gradients.
    replicated = device.holds(training_bytes(student))
    exchanged = (8 if replicated else 6) * trained * apart
    gathered = 0 if device.holds(2 * (teacher.body + teacher.head)) else 2 * teacher.body * apart
    prompt, late = step.length - step.response, step.length - step.response / 2
    keys = 4 * student.layers * student.kv_width * responses * late
    return {
        "student's body, forward + backward": Stage(
            flops=3 * student.forward(step.length / 2) * tokens,
            moved=3 * student.traffic(tokens),
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
            moved=teacher.traffic(tokens),
            from_peers=gathered,
        ),
        "teacher from the cache": Stage(
            moved=4 * teacher.width * responses, from_host=2 * teacher.width * responses
        ),
        "sampling": Stage(
            flops=(student.forward(late) + 2 * student.head) * responses
            + student.forward(prompt / 2) * rows * prompt,
            moved=2 * trained * step.response + keys + student.traffic(rows * prompt),
        ),
        "optimiser": Stage(moved=28 * trained / (1 if replicated else devices)),
    }


def training_bytes(model: Transformer) -> int:
    """Weights, gradients and AdamW's moments in float32."""
    return 16 * (model.body + model.head)
