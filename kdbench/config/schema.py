"""Everything a result depends on, as data: the suite, its recipe, its decoding.

A suite is a YAML file read into `Suite`. What can move a number is a field here and enters the
digests; what only changes where or how fast it runs (`--jobs`, chunk and micro-batch sizes) is not.
"""

from itertools import pairwise
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

DEV = "dev"
"""The split that tuning chooses on: no evaluation set has its name, and no average holds it."""

Truncation = Literal["ours", "published"]
"""What a long prompt loses: the end of its input text, or its right end (as in the papers)."""

Template = Literal["alpaca", "chat"]
"""How a prompt is asked: in the published suites' frame, or with the tokenizer's chat template."""

Column = Literal["instruction", "input", "output", "messages"]
"""What a field of a file of records can be."""

_SHA256 = r"^([0-9a-f]{64})?$"

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$", max_length=100)]
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]

MAX_SEEDS = 1000
"""Training seeds of a run; those from here on are for the candidates of a tuning."""


class Fields(BaseModel):
    """What is read from a file: frozen, without unknown fields."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )


class Split(Fields):
    """One file or folder of records, in a form that Hugging Face `datasets` reads.

    The pins (`sha256`, `hub_sha256`, `records`) are not in digests: the files' bytes are.
    """

    path: str
    """JSON lines, a JSON list, Parquet, CSV, TSV, or a folder that `save_to_disk` wrote or that is
    a mirror of a dataset; below the data folder (`--data-dir`, or what the generator made)."""
    split: Annotated[str, Field(pattern=r"^(\w+(\.\w+)*(\[(-?\d+%?)?:(-?\d+%?)?\])?)?$")] = ""
    """Which rows of it, as `datasets` writes it: `train[1000:]`, `test[:10%]`. A file's only split
    is called `train`; of a folder with several, one has to be named."""
    columns: dict[Column, str] = {}
    """Which of the file's fields is what, where they have other names than `kdbench.data` knows:
    `{instruction: question, output: answer}`, or `{messages: chat}`."""
    hub: str = ""
    """The dataset on the hub to take the records from where there is no `--data-dir`."""
    hub_config: str = ""
    """The configuration of that dataset, where it has several and is taken whole."""
    hub_file: str = ""
    """The file in that dataset; the name of `path` where it is left out. Where that has no ending
    such as `.jsonl` either, the dataset is taken whole and `path` is its folder."""
    hub_revision: str = ""
    """The commit, tag or branch of that dataset; its main branch where it is left out."""
    hub_rows: Annotated[str, Field(pattern=r"^(\d*:\d*)?$")] = ""
    """Only these rows of `hub_file` are fetched: `1000:` leaves out the first thousand. `split`
    cuts what lies at `path`, wherever it comes from."""
    hub_sha256: Annotated[str, Field(pattern=_SHA256, exclude=True)] = ""
    """Digest that `hub_file` has to have, whole, as the hub's page of the file shows it."""
    sha256: Annotated[str, Field(pattern=_SHA256, exclude=True)] = ""
    """Digest that a local file at `path` has to have, as `sha256sum` prints it; of a folder, as the
    refusal of another digest prints it."""
    records: Annotated[Positive | None, Field(exclude=True)] = None
    """How many records `split` has to take, wherever the file comes from; with a `limit`, a shorter
    file that holds so many is enough."""
    max_prompt_chars: Positive | None = None
    """Leaves out records whose instruction and input, or whose turns before the answer, have more
    characters together."""
    max_output_chars: Positive | None = None
    """Leaves out records one of whose outputs has more characters. Characters and not tokens: every
    tokenizer sees the same records."""
    limit: Positive | None = None
    """Only the first so many records, after those that are too long are left out."""
    redistribute: bool = True
    """Whether prompts and references may stand in published pages."""
    license: str = ""

    @property
    def is_whole(self) -> bool:
        """Whether the dataset on the hub is taken whole, and not one file of it."""
        return bool(self.hub) and not (self.hub_file or PurePosixPath(self.path).suffix)

    @model_validator(mode="after")
    def _fields_fit(self) -> "Split":
        if "messages" in self.columns and len(self.columns) > 1:
            raise ValueError("columns: give messages, or instruction, input and output")
        if self.is_whole and (self.hub_rows or self.hub_sha256):
            raise ValueError(
                "hub_rows, hub_sha256: of which hub_file? A dataset that is taken whole is cut "
                "with split, and pinned with hub_revision"
            )
        ending = PurePosixPath(self.path).suffix
        other = self.hub_file and ending != PurePosixPath(self.hub_file).suffix
        if ending in (".parquet", ".csv", ".tsv") and (self.hub_rows or other):
            raise ValueError(
                "path: what hub_rows cuts, and a hub_file of another format, becomes JSON lines: "
                "the name has to end in .jsonl"
            )
        if self.hub_config and not self.is_whole:
            raise ValueError("hub_config: only a dataset that is taken whole has one, no hub_file")
        return self


class Data(Fields):
    """Where the records come from, and how long a sequence may be."""

    generator: str = ""
    """`module:function` that writes the files from nothing (`function(folder, seed=...)`), of an
    installed package of suites or of a file given with `--plugin`, by its name without `.py`."""
    generator_seed: Seed = 0
    teacher: Split | None = None
    """What the teacher is trained on; `train` where it is left out."""
    train: Split
    dev: Split
    evaluation: Annotated[dict[Name, Split], Field(min_length=1)]
    max_prompt: Positive = 256
    """Tokens; a longer prompt loses the end of its input text, never its frame. A conversation
    loses its oldest turns first."""
    max_length: Positive = 512
    """Tokens of prompt and response; training rows that are longer are left out."""
    truncation: Truncation = "ours"
    """`published`: prompts are cut from the right and long rows at `max_length`, as in the papers.
    """
    template: Template = "alpaca"
    """`chat`: the tokenizer's own chat template, its default system turn kept; the only one that
    renders conversations of several turns."""
    template_options: dict[str, bool | str] = {}
    """Switches of the chat template, such as `enable_thinking: false`."""

    @model_validator(mode="after")
    def _template_fits(self) -> "Data":
        if self.template == "chat" and self.truncation == "published":
            raise ValueError(
                "template: chat needs truncation: ours; published would cut off the template's end"
            )
        if self.template_options and self.template != "chat":
            raise ValueError(f"template_options: {self.template} has none, only template: chat")
        return self


class TokenizerSpec(Fields):
    """A byte-level BPE trained on the teacher's data, or an existing one."""

    path: str = ""
    """A folder with `tokenizer.json`; the teacher's where both are left out."""
    vocabulary: Annotated[int, Field(ge=300)] | None = None
    """Size of the BPE to train."""
    frame_tokens: bool = False
    """The fixed parts of the prompt's frame are single tokens."""


class Architecture(Fields):
    """A small Llama, to be trained from scratch."""

    width: Positive
    layers: Positive
    heads: Positive
    mlp: Positive
    tied: bool = True
    init_std: Annotated[float, Field(gt=0)] = 0.02
    """Standard deviation of the initial weights."""

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> "Architecture":
        if self.width % self.heads or self.width // self.heads % 2:
            raise ValueError("width / heads has to be an even whole number")
        return self


class Recipe(Fields):
    """Optimisation: AdamW with a warm-up and a cosine."""

    steps: Positive
    batch: Positive
    """Sequences in a global batch: part of the method."""
    lr: Annotated[float, Field(gt=0)]
    min_lr: Annotated[float, Field(ge=0)] = 0.0
    warmup: Annotated[int, Field(ge=0)] = 0
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    betas: tuple[Share, Share] = (0.9, 0.999)
    clip: Annotated[float, Field(gt=0)] = 1.0
    """The gradient's norm is clipped to this."""

    @model_validator(mode="after")
    def _schedule_fits(self) -> "Recipe":
        if self.min_lr > self.lr:
            raise ValueError(f"min_lr: {self.min_lr} is above lr, {self.lr}")
        if self.warmup > self.steps:
            raise ValueError(f"warmup: {self.warmup} is more than all {self.steps} steps")
        return self


class Shape(Fields):
    """How large a model on the hub is, so that `kdbench plan` reckons before it is downloaded."""

    layers: Positive
    width: Positive
    mlp: Positive
    heads: Positive
    kv_heads: Positive | None = None
    """Heads of keys and values; as many as `heads` where it is left out."""
    head_dim: Positive | None = None
    """width / heads where it is left out."""
    gate: bool = True
    """Three matrices in an MLP (SwiGLU), or two."""
    vocabulary: Positive
    positions: Annotated[int, Field(ge=0)] = 0
    """Learned position embeddings."""
    tied: bool = True


class Lora(Fields):
    """Low-rank adapters in the place of full training; merged into the weights at the end."""

    rank: Positive
    alpha: Positive
    dropout: Share = 0.0
    targets: tuple[str, ...] = ()
    """Names of the layers; what peft takes for the architecture where it is left out."""


class Model(Fields):
    """Weights from a folder, the hub or a GGUF file, or an architecture trained here."""

    path: str = ""
    """A folder; read in the place of `hub` or `gguf` where both are given."""
    hub: str = ""
    """The model on the hub, `owner/name`."""
    revision: str = ""
    """The commit, tag or branch of it; its main branch where it is left out."""
    gguf: str = ""
    """A GGUF file, a path or `PACKAGE/FILE` of an installed Python package; dequantised once."""
    keep_layers: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Of given weights only these layers, counted from 0, in rising order."""
    pickle: bool = False
    """Load pickled weights where there are no safetensors. A pickle can run any code."""
    trust_remote_code: bool = False
    """Run the Python code that comes with the model and that its config.json names."""
    dtype: Literal["", "float32", "bfloat16", "float16"] = ""
    """Of a teacher's weights on a GPU; their own where it is left out."""
    shape: Annotated[Shape | None, Field(exclude=True)] = None
    """For `kdbench plan`, while the model is not here; moves no result."""
    architecture: Architecture | None = None
    fit: Recipe | None = None
    """Supervised training before anything is distilled."""
    fit_rows: Positive | None = None
    """Only the first so many rows of the split."""
    lora: Lora | None = None
    """Trains adapters, in `fit` and in distillation."""
    gradient_checkpointing: Annotated[bool, Field(exclude=True)] = False
    """Forms a layer's activations again in the backward pass, to save memory."""

    @property
    def given(self) -> str:
        """Where the weights come from: folder, GGUF file, model on the hub; "" for from scratch."""
        return self.path or self.gguf or self.hub

    @field_validator("keep_layers")
    @classmethod
    def _in_order(cls, layers: tuple[int, ...]) -> tuple[int, ...]:
        if any(later <= earlier for earlier, later in pairwise(layers)):
            raise ValueError("each layer once, in rising order")
        return layers

    @model_validator(mode="after")
    def _one_origin(self) -> "Model":
        if bool(self.given) == (self.architecture is not None):
            raise ValueError("give either path, hub, gguf or architecture")
        if self.gguf and self.hub:
            raise ValueError("give either hub or gguf")
        if self.keep_layers and self.architecture is not None:
            raise ValueError("keep_layers: an architecture says its number of layers itself")
        if self.architecture is not None and self.fit is None:
            raise ValueError("an architecture needs a recipe in fit")
        if self.trust_remote_code and not (self.path or self.hub):
            raise ValueError("trust_remote_code: only a path or a hub brings code of its own")
        if self.revision and not self.hub:
            raise ValueError("revision: of which hub?")
        return self


class Loss(Fields):
    """Every term of what is minimised; nothing is added silently."""

    kd: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the objective."""
    sft: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the cross-entropy on the gold response, at temperature 1."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Divides both logits before the objective sees them."""
    t_squared: bool = False
    """Multiplies the objective by temperature squared."""

    @property
    def factor(self) -> float:
        """What the objective's value is multiplied by."""
        return self.kd * (self.temperature**2 if self.t_squared else 1.0)

    @model_validator(mode="after")
    def _not_nothing(self) -> "Loss":
        if self.kd == 0 and self.sft == 0:
            raise ValueError("kd and sft are both 0: there is nothing to minimise")
        return self


class Decoding(Fields):
    """How answers are sampled; part of a score's identity."""

    temperature: Annotated[float, Field(gt=0)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_new_tokens: Positive = 256
    seeds: tuple[Seed, ...] = (10, 20, 30, 40, 50)
    greedy: bool = True
    """Also decode greedily, for `rouge_l_greedy`."""
    no_repeat_ngram_size: Annotated[int, Field(ge=0)] = 0
    """No answer has so many tokens in a row that its prompt or itself had before; 0 is off."""

    @model_validator(mode="after")
    def _sensible(self) -> "Decoding":
        if not self.seeds:
            raise ValueError("seeds: at least one")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds have to differ")
        if self.no_repeat_ngram_size == 1:
            raise ValueError("no_repeat_ngram_size: 1 bans all tokens of the prompt; 0 is off")
        return self


class Diagnostics(Fields):
    """What every trial logs about itself on one fixed batch of dev."""

    every: Positive = 50
    """Steps between two measurements."""
    rows: Positive = 64
    """Rows of dev in the batch."""


class Suite(Fields):
    """A benchmark: data, models, recipe and decoding; everything but the objective."""

    name: Name
    description: str = ""
    data: Data
    tokenizer: TokenizerSpec = TokenizerSpec()
    teacher: Model
    student: Model
    """The one initial student that all objectives and seeds start from."""
    recipe: Recipe
    loss: Loss = Loss()
    decoding: Decoding = Decoding()
    diagnostics: Diagnostics = Diagnostics()
    select: Literal["last"] = "last"
    """Which student of a training is scored: the one after the last step, never the best on dev."""
    seeds: Annotated[int, Field(ge=1, le=MAX_SEEDS)] = 3
    """Training seeds, where `--seeds` does not say otherwise."""

    @model_validator(mode="after")
    def _consistent(self) -> "Suite":
        if reserved := {"average", "teacher", "train"} & set(self.data.evaluation):
            raise ValueError(f"data.evaluation: {', '.join(reserved)} cannot name a set")
        if any(name.endswith(".greedy") for name in self.data.evaluation):
            raise ValueError("data.evaluation: a set's name cannot end in .greedy")
        if self.tokenizer.vocabulary and (self.teacher.given or self.student.given):
            raise ValueError(
                "tokenizer.vocabulary: models from a folder or the hub bring their own tokenizer"
            )
        if self.data.max_prompt >= self.data.max_length:
            raise ValueError("data.max_prompt has to be below data.max_length")
        if self.tokenizer.path and self.tokenizer.vocabulary:
            raise ValueError("tokenizer: give path or vocabulary, not both")
        if self.tokenizer.vocabulary and self.data.template == "chat":
            raise ValueError("data.template: chat: a BPE trained here has no chat template")
        trained = self.teacher.architecture is not None and self.student.architecture is not None
        if trained and not (self.tokenizer.path or self.tokenizer.vocabulary):
            raise ValueError("models made from scratch need tokenizer.vocabulary or tokenizer.path")
        return self
