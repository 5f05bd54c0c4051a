"""What a run needs of its models is checked before anything is made."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import AddedToken, Tokenizer, models

from kdbench.base.errors import UserError
from kdbench.config.schema import Lora, Suite
from kdbench.models import model as models_of
from kdbench.pipeline.artifacts import Artifacts
from kdbench.pipeline.checks import check_models, check_same_vocabulary

WORDS = {"a": 0, "b": 1}
BPE = models.BPE(WORDS, [])
UNIGRAM = models.Unigram([("a", -1.0), ("b", -2.5)], 0, False)


def save(folder: Path, model: models.Model, *added: str) -> Path:
    """Saves a tokenizer whose added tokens get the ids that follow."""
    folder.mkdir()
    tokenizer = Tokenizer(model)
    tokenizer.add_tokens([AddedToken(token) for token in added])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize("model", [BPE, UNIGRAM], ids=["bpe", "unigram"])
def test_the_same_tokens_with_the_same_ids_are_one_vocabulary(
    model: models.Model, tmp_path: Path
) -> None:
    check_same_vocabulary(save(tmp_path / "one", model), save(tmp_path / "two", model))


def test_an_added_token_that_stands_in_one_list_only_is_the_same_token(tmp_path: Path) -> None:
    one = save(tmp_path / "one", models.BPE({**WORDS, "<pad>": 2}, []))
    check_same_vocabulary(one, save(tmp_path / "two", BPE, "<pad>"))


def test_an_added_token_of_one_model_alone_is_named(tmp_path: Path) -> None:
    one, two = save(tmp_path / "one", BPE), save(tmp_path / "two", BPE, "<pad>")
    with pytest.raises(UserError, match="for example '<pad>': no id and id 2"):
        check_same_vocabulary(one, two)


def test_equal_counts_with_other_ids_are_told_apart(tmp_path: Path) -> None:
    swapped = models.Unigram([("b", -2.5), ("a", -1.0)], 0, False)
    one, two = save(tmp_path / "one", UNIGRAM), save(tmp_path / "two", swapped)
    with pytest.raises(UserError, match=r"\(2 tokens\).*for example 'a': id 0 and id 1"):
        check_same_vocabulary(one, two)


def given(artifacts: Artifacts, folder: Path, role: str, **config: object) -> Artifacts:
    """The micro suite with checkpoints as teacher and student, one with other settings."""
    models: dict[str, Any] = {}
    for name in ("teacher", "student"):
        place = shutil.copytree(artifacts.model(name) / "model", folder / name)  # type: ignore[arg-type]
        if name == role:
            settings = json.loads((place / "config.json").read_text())
            (place / "config.json").write_text(json.dumps(settings | config))
        spec = getattr(artifacts.suite, name)
        models[name] = spec.model_copy(
            update={"path": str(place), "architecture": None, "fit": None}
        )
    suite = artifacts.suite.model_copy(update=models)
    return Artifacts(suite, artifacts.data_folder)


@pytest.mark.parametrize("role", ["teacher", "student"])
@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"max_position_embeddings": 127}, "has 127 positions.*128 tokens.*max_length"),
        ({"vocab_size": 100}, "has 100 output ids"),
        ({"model_type": "t5"}, "config.json: transformers cannot"),
        ({"num_attention_heads": 0}, "config.json: transformers cannot"),
    ],
)
def test_what_a_model_lacks_is_refused_by_its_role(
    artifacts: Artifacts, tmp_path: Path, role: str, config: dict[str, object], message: str
) -> None:
    wanting = given(artifacts, tmp_path, role, **config)
    with pytest.raises(UserError, match=f"(?s){role}.*{message}"):
        check_models(wanting, "transformers")


def with_answers(suite: Suite, tokens: int) -> Suite:
    decoding = suite.decoding.model_copy(update={"max_new_tokens": tokens})
    return suite.model_copy(update={"decoding": decoding})


def test_answers_beyond_the_positions_are_refused_and_what_fits_exactly_is_not(
    artifacts: Artifacts, tmp_path: Path
) -> None:
    fits = given(artifacts, tmp_path, "student", max_position_embeddings=128)
    check_models(Artifacts(with_answers(fits.suite, 32), fits.data_folder), "transformers")
    longer = Artifacts(with_answers(fits.suite, 33), fits.data_folder)
    with pytest.raises(UserError, match=r"student.*128 positions.*129 tokens"):
        check_models(longer, "transformers")


def test_a_model_from_scratch_has_an_end_too(artifacts: Artifacts) -> None:
    longer = Artifacts(with_answers(artifacts.suite, 2000), artifacts.data_folder)
    with pytest.raises(UserError, match="2048 positions"):
        check_models(longer, "transformers")


def test_layers_to_adapt_that_are_not_there_are_refused(
    artifacts: Artifacts, tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    found = given(artifacts, tmp_path, "student")
    student = found.suite.student.model_copy(
        update={"lora": Lora(rank=2, alpha=4, targets=("no_such",))}
    )
    suite = found.suite.model_copy(update={"student": student})
    with pytest.raises(UserError, match=r"student.*lora.targets"):
        check_models(Artifacts(suite, found.data_folder), "transformers")


def test_a_model_of_any_size_is_saved_as_one_file(
    artifacts: Artifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = models_of.load(artifacts.model("student") / "model", torch.device("cpu"))
    written = transformers.PreTrainedModel.save_pretrained

    def small(self: Any, folder: Path, max_shard_size: str = "10KB", **options: Any) -> None:
        written(self, folder, max_shard_size=max_shard_size, **options)

    monkeypatch.setattr(transformers.PreTrainedModel, "save_pretrained", small)
    model.save_pretrained(tmp_path / "cut")
    assert len(list((tmp_path / "cut").glob("*.safetensors"))) > 1
    models_of.save(model, tmp_path / "whole")
    assert [path.name for path in (tmp_path / "whole").glob("*.safetensors*")] == [
        "model.safetensors"
    ]
