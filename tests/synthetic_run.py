"""A run's folder without a training: what the store promises, with figures of our choosing."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from kdbench.base.seeds import derive
from kdbench.base.store import write_json, write_jsonl, write_text
from kdbench.config.identity import Budget, RunSpec, Shared
from kdbench.config.load import load_suite
from kdbench.runs.folder import Run
from kdbench.score import write_scores

SETS = {"dolly": 40, "self-inst": 30, "vicuna": 20}


@dataclass(frozen=True)
class Variant:
    """What one variant's trials look like."""

    name: str
    mean: float
    params: Mapping[str, Any] = field(default_factory=dict)
    scale: float = 1.0
    """Of its loss and gradients."""
    seeds: Sequence[int] = (0, 1, 2)
    init_seeds: Sequence[int] = (0,)
    diverged: Sequence[int] = ()
    """The seeds that diverge."""
    noise: float = 0.3
    """Standard deviation over seeds, beside the seeds' common part."""
    generated: int = 0
    """Tokens sampled in a step, each by a sequence of its own, which the teacher then reads."""
    noise_of: str = ""
    """Another word draws other noise for the same name."""


def amid_grid() -> list[Variant]:
    """The 16 variants of a full run: nine objectives and seven alphas."""
    plain = {
        "sft": 54.8,
        "forward-kl": 56.9,
        "tvd": 57.8,
        "skew-kl": 58.0,
        "jsd": 58.2,
        "jeffreys": 58.6,
        "skew-reverse-kl": 59.1,
        "reverse-kl": 59.6,
        "alpha-beta": 59.4,
    }
    scales = dict(zip(plain, (3.0, 0.6, 0.2, 0.5, 0.02, 1.4, 0.9, 1.1, 0.4), strict=True))
    alphas = {-5.0: 60.4, -3.0: 60.3, -1.0: 59.9, -0.5: 59.5, 0.0: 59.4, 0.5: 59.0, 1.0: 58.7}
    divergence = "alpha-beta[alpha=0.2,beta=0.7]"
    return [Variant(name, mean, scale=scales[name]) for name, mean in plain.items()] + [
        Variant(
            f"amid[alpha={alpha:g}]",
            mean,
            {"alpha": alpha, "divergence": divergence, "order": "pr", "teacher_weight": 0.1},
            scale=0.05,
        )
        for alpha, mean in alphas.items()
    ]


def write_run(
    path: Path,
    variants: Sequence[Variant],
    *,
    steps: int = 60,
    references: bool = True,
    sets: Mapping[str, int] = SETS,
) -> Run:
    """Writes finished trials of all variants and of the reference rows, and returns the run."""
    run = Run(path)
    for variant in variants:
        for seed, init_seed in product(variant.seeds, variant.init_seeds):
            write_trial(run, variant, seed, init_seed, steps=steps, sets=sets)
    if references:
        for name, mean in (("teacher", 69.3), ("initial student", 51.5)):
            write_trial(run, Variant(name, mean), 0, steps=0, sets=sets)
    write_spec(run, [variant.name for variant in variants], sets=sets)
    return run


def write_spec(
    run: Run,
    variants: Sequence[str] = (),
    *,
    sets: Iterable[str] = SETS,
    settings: Sequence[str] = (),
    secret: Sequence[str] = (),
    data_digest: str = "d0",
    tuning: Budget | None = None,
    **fields: Any,
) -> None:
    """Writes the spec.yaml of a run of the suite `instruct`.

    Args:
        run: whose folder gets it.
        variants: of the run.
        sets: the evaluation sets.
        settings: changes of the suite, as of `--set`.
        secret: the sets that are marked `redistribute: false`.
        data_digest: of the records.
        tuning: as the run's command said.
        fields: of the suite that `--set` cannot say, such as its name.
    """
    suite = load_suite("instruct", tuple(settings))
    split = suite.data.evaluation["dolly"]
    known = {name: suite.data.evaluation.get(name, split) for name in sets}
    marked = {
        name: one.model_copy(update={"redistribute": name not in secret})
        for name, one in known.items()
    }
    data = suite.data.model_copy(update={"evaluation": marked})
    shared = Shared(
        suite=suite.model_copy(update={"data": data, **fields}),
        data_digest=data_digest,
        backend="transformers",
        backend_version="5.19.0",
        dtype="float32",
    )
    spec = RunSpec(shared=shared, variants=tuple(variants), seeds=3, init_seeds=1, tuning=tuning)
    text = yaml.safe_dump(spec.model_dump(mode="json"), sort_keys=False)
    write_text(run.path / "spec.yaml", text)


def write_trial(
    run: Run,
    variant: Variant,
    seed: int,
    init_seed: int = 0,
    *,
    steps: int = 60,
    sets: Mapping[str, int] = SETS,
    rooms: str = "c0de",
) -> None:
    """Writes one finished trial."""
    objective = variant.name.partition("[")[0]
    slug = variant.name.replace("[", "-").replace("]", "").replace("=", "-").replace(",", "-")
    trial = run.trial(slug, seed, init_seed)
    write_json(
        trial.path / "spec.json",
        {
            "variant": variant.name,
            "objective": objective,
            "params": dict(variant.params),
            "lr": None,
            "source": {"name": "dataset", "params": {}},
            "slug": slug,
            "seed": seed,
            "init_seed": init_seed,
            "reference": variant.name in ("teacher", "initial student"),
            "code": "c0de",
            "harness": {"version": "0", "commit": None, "dirty": None, "rooms": rooms},
        },
    )
    diverged = seed in variant.diverged
    if steps:
        log = training_log(variant, seed, steps)
        write_jsonl(trial.train_log, log[: steps // 2] if diverged else log)
    write_scores(trial.scores_path, scores(variant, seed, sets, init_seed))
    write_json(
        trial.path / "DONE.json",
        {
            "status": "diverged" if diverged else "done",
            "diverged_at": steps // 2 if diverged else None,
            "reason": "loss is NaN" if diverged else None,
            "steps": steps,
            "train_seconds": 1.5 + seed,
            "tokens": 100 * steps,
            "teacher_passes": variant.generated * steps,
            "generated_tokens": variant.generated * steps,
            "weights": {},
            "dropout": 0.0,
            "digests": {},
        },
    )


def scores(
    variant: Variant, seed: int, sets: Mapping[str, int], init_seed: int = 0
) -> list[tuple[str, int, int, str, float]]:
    """Score rows whose mean over each set is the variant's mean plus seed and trial effects."""
    common = np.random.default_rng(derive("seed", seed)).normal(0, 0.8)
    student = [init_seed] if init_seed else []
    common += sum(np.random.default_rng(derive("student", one)).normal(0, 0.5) for one in student)
    generator = np.random.default_rng(derive(variant.name + variant.noise_of, seed, *student))
    rows = []
    for place, (name, samples) in enumerate(sets.items()):
        level = variant.mean - 3 * place + common + generator.normal(0, variant.noise)
        level /= 8 if seed in variant.diverged else 1
        prompts = np.random.default_rng(derive("prompts", name)).normal(0, 12, samples)
        values = prompts + generator.normal(0, 4, samples)
        values += level - values.mean()
        for sample, value in enumerate(np.clip(values, 0, 100)):
            rows += [
                (name, sample, 10, "rouge_l", float(value)),
                (name, sample, 10, "exact_match", 100.0 * float(value > 70)),
                (name, sample, 10, "length", float(generator.integers(8, 20))),
                (name, sample, -1, "rouge_l_greedy", float(min(value + 4, 100))),
            ]
        rows.append((name, -1, 10, "distinct_2", float(generator.uniform(40, 50))))
    return rows


def training_log(variant: Variant, seed: int, steps: int) -> list[dict[str, Any]]:
    """A falling loss of the variant's own scale, with the common diagnostics every tenth step."""
    generator = np.random.default_rng(derive("log", variant.name, seed))
    rows: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        decay = float(np.exp(-3 * step / steps))
        noise = generator.normal(0, 0.06, 2)
        norm = float(variant.scale * (0.6 + 2 * decay) * np.exp(4 * noise[1]))
        rows.append(
            {
                "step": step,
                "loss": float(variant.scale * (1 + 2 * decay + noise[0])),
                "grad_norm": norm,
                "clipped": norm > 1,
                "lr": 3e-3 * (1 - step / steps),
                "tokens": 400,
                "seconds": 0.01,
            }
        )
        if step == 1 or step % (steps // 10) == 0:
            better = (variant.mean - 54) / 20
            rows[-1] |= {
                "dev_loss": float(variant.scale * (1 + 2 * decay)),
                "dev_nll": 1.2 + decay + float(noise[0]) / 5,
                "forward_kl": 0.5 + 0.5 * decay - 0.2 * better,
                "reverse_kl": 0.9 - 0.8 * better + 0.6 * decay,
                "tvd": 0.2 - 0.05 * better + 0.2 * decay,
                "student_entropy": 0.6 - 0.5 * better + 0.3 * decay,
            }
    return rows
