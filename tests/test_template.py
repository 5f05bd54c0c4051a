"""Chat templates: transformers' own ids, where an answer ends, what is refused, what is keyed."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from kdbench.base import store
from kdbench.base.errors import UserError
from kdbench.config.load import load_suite
from kdbench.data import Record, encode_record
from kdbench.data.encode import Encoded, encode_prompt
from kdbench.data.files import locate
from kdbench.data.record import Turn
from kdbench.data.template import frame_of
from kdbench.data.tokenizer import end_id, read_frame, stop_ids
from kdbench.generate.student import read_student
from kdbench.pipeline import build
from kdbench.pipeline.artifacts import Artifacts
from kdbench.pipeline.checks import check_models

CHATML = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nYou help.<|im_end|>\\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}{% endif %}"
)
DATED = (
    "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "{{ date_string + messages[0]['content'] }}"
)
SILENT = "data.template_options={enable_thinking: false}"
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
SUITE = """\
name: chatty
data:
  generator: kdbench.suites.instruct:generate
  train: {{path: train.jsonl, limit: 6}}
  dev: {{path: dev.jsonl, limit: 3}}
  evaluation:
    vicuna: {{path: vicuna.jsonl, limit: 3}}
  template: chat
  max_prompt: 200
  max_length: 400
teacher: {{path: {folder}}}
student: {{path: {folder}}}
recipe: {{steps: 1, batch: 2, lr: 0.001}}
decoding: {{max_new_tokens: 8}}
"""


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE that knows both an end of text and an end of turn, as instruct models do."""
    fast = Tokenizer(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    fast.train_from_iterator(["the quick brown fox jumps over the lazy dog"] * 3, trainer)
    return chatting(fast, CHATML)


def chatting(tokenizer: Tokenizer, template: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, eos_token="<|im_end|>", chat_template=template
    )


@pytest.fixture
def folder(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Path:
    """An instruct model's folder: weights, tokenizer, and the template in a file of its own."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = LlamaConfig(vocab_size=320, eos_token_id=2, tie_word_embeddings=True, **sizes)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    assert (tmp_path / "model" / "chat_template.jinja").is_file()
    return tmp_path / "model"


def chatty(folder: Path, *settings_: str) -> Artifacts:
    path = folder.parent / "chatty.yaml"
    path.write_text(SUITE.format(folder=folder))
    suite = load_suite(str(path), settings_)
    return Artifacts(suite, locate(suite, None))


def edit_config(folder: Path, **fields: Any) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def their_ids(
    tokenizer: PreTrainedTokenizerFast, messages: list[dict[str, str]], **options: bool
) -> list[int]:
    options |= {"tokenize": True, "add_generation_prompt": True, "return_dict": False}
    ids: list[int] = tokenizer.apply_chat_template(messages, **options)
    return ids


def asking(instruction: str, context: str) -> list[dict[str, str]]:
    content = f"{instruction}\n\n{context}" if context else instruction
    return [{"role": "user", "content": content}]


TEXT = st.text(max_size=40)


@settings(max_examples=40)
@given(instruction=TEXT, context=TEXT, output=TEXT, switch=st.sampled_from([None, True, False]))
def test_a_chats_ids_are_those_of_transformers(
    tokenizer: PreTrainedTokenizerFast,
    instruction: str,
    context: str,
    output: str,
    switch: bool | None,
) -> None:
    options = {} if switch is None else {"enable_thinking": switch}
    row = {"instruction": instruction, "input": context, "output": output}
    prompt, response = encode_record(
        tokenizer, row, max_prompt=999, max_length=9999, template="chat", template_options=options
    )
    assert prompt == their_ids(tokenizer, asking(instruction, context), **options)
    assert tokenizer.decode(response[:-1]) == output.encode(errors="replace").decode()
    assert response[-1] == tokenizer.convert_tokens_to_ids("<|im_end|>")


@settings(max_examples=30)
@given(context=st.text(max_size=120), room=st.integers(1, 80))
def test_a_long_chat_loses_the_end_of_its_input_and_keeps_its_frame(
    tokenizer: PreTrainedTokenizerFast, context: str, room: int
) -> None:
    frame = frame_of(tokenizer, "chat")
    limit = len(their_ids(tokenizer, asking("do it", "x"))) + room
    text = tokenizer.decode(encode_prompt(frame, Record("do it", context, ("x",)), limit))
    opening, closing = frame.render(Record("do it", "@", ("x",))).split("\n\n@")
    assert text.startswith(opening)
    assert text.endswith(closing)
    assert len(frame.tokenizer.encode(text).ids) <= limit


ROLE = st.sampled_from(["user", "assistant"])


@settings(max_examples=40)
@given(
    turns=st.lists(st.builds(Turn, ROLE, TEXT), min_size=2, max_size=6),
    system=st.booleans(),
    room=st.integers(1, 80),
)
def test_a_conversations_ids_are_those_of_transformers_and_it_loses_its_oldest_turns(
    tokenizer: PreTrainedTokenizerFast, turns: list[Turn], system: bool, room: int
) -> None:
    turns = [Turn("system", "s")] * system + turns + [Turn("user", "the last question")]
    messages = [{"role": turn.role, "content": turn.content} for turn in turns]
    row = {"messages": [*messages, {"role": "assistant", "content": "a"}]}
    prompt, response = encode_record(
        tokenizer, row, max_prompt=9998, max_length=9999, template="chat"
    )
    assert prompt == their_ids(tokenizer, messages)
    assert tokenizer.decode(response[:-1]) == "a"
    frame = frame_of(tokenizer, "chat")
    last = [*messages[: int(system)], messages[-1]]
    limit = len(their_ids(tokenizer, last)) + room - 3
    ids = encode_prompt(frame, Record.of(row, "here"), limit)
    assert len(ids) <= limit
    kept = tokenizer.decode(ids)
    assert kept.startswith(f"<|im_start|>system\n{'s' if system else 'You help.'}<|im_end|>")
    closing = "<|im_end|>\n<|im_start|>assistant\n"
    shown = kept.removesuffix(closing).rpartition("<|im_start|>user\n")[2]
    assert kept.endswith(closing)
    assert "the last question".startswith(shown)
    assert shown


def test_a_template_that_refuses_roles_and_the_alpaca_frame_say_so(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    refusal = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    )
    picky = chatting(tokenizer.backend_tokenizer, refusal + "{{ messages[0]['content'] }}")
    record = Record("s q", "", ("a",), (Turn("system", "s"), Turn("user", "q")))
    with pytest.raises(UserError, match="cannot render turns of system, user: no system"):
        encode_record(picky, record, template="chat")
    with pytest.raises(UserError, match=r"2 turns .* Alpaca frame.*template: chat"):
        encode_record(tokenizer, record)


def test_an_answer_ends_at_the_token_that_the_tokenizers_files_name(folder: Path) -> None:
    assert end_id(folder) == SPECIAL.index("<|im_end|>")
    edit_config(folder, eos_token={"content": "<|endoftext|>"})
    assert end_id(folder) == SPECIAL.index("<|endoftext|>")
    edit_config(folder, eos_token=None)
    assert end_id(folder) == SPECIAL.index("<|endoftext|>")
    edit_config(folder, eos_token="<|nowhere|>")
    with pytest.raises(UserError, match=r"<\|nowhere\|> is no token"):
        end_id(folder)


def test_training_generation_and_the_models_folder_end_at_the_same_token(folder: Path) -> None:
    made = chatty(folder, SILENT)
    check_models(made, "transformers")
    build.prepare(made)
    build.make_model(made, "student", 0, 2, lambda _: None)
    train = Encoded.load(made.encoded / "train.safetensors")
    model = made.model("student") / "model"
    ends = {train.response(row)[-1] for row in range(len(train))}
    assert ends == {end_id(made.tokenizer)} == {end_id(model)} == read_student(model, 8).eos_ids
    assert (model / "chat_template.jinja").read_text() == CHATML
    tokenizer = read_frame(model, made.suite.data).tokenizer
    asked = tokenizer.decode(train.prompt(0), skip_special_tokens=False)
    assert asked.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")


@pytest.mark.parametrize(
    ("generation", "config", "stops"),
    [
        ({"eos_token_id": [0, 2]}, {"eos_token_id": 2}, {0, 2}),
        ({"temperature": 0.7}, {"eos_token_id": 2}, {2}),
        ({"temperature": 0.7}, {"eos_token_id": None}, {1}),
        (None, {"eos_token_id": 2}, {2}),
    ],
    ids=["generation", "generation-silent", "tokenizer", "config"],
)
def test_answers_stop_where_the_models_files_say_or_else_where_the_tokenizers_do(
    folder: Path, generation: dict[str, Any] | None, config: dict[str, Any], stops: set[int]
) -> None:
    edit_config(folder, eos_token="<|im_start|>")
    path = folder / "config.json"
    store.write_json(path, {**store.read_json(path), **config})
    (folder / "generation_config.json").unlink(missing_ok=True)
    if generation is not None:
        store.write_json(folder / "generation_config.json", generation)
    assert stop_ids(folder) == read_student(folder, 8).eos_ids == stops


def test_a_student_carries_the_suites_tokenizer(folder: Path) -> None:
    student = folder.parent / "student"
    shutil.copytree(folder, student)
    edit_config(student, eos_token="<|endoftext|>")
    store.write_json(student / "generation_config.json", {"eos_token_id": [0, 2]})
    made = chatty(folder, f"student.path={student}")
    build.prepare(made)
    build.make_model(made, "student", 0, 2, lambda _: None)
    assert end_id(made.model("student") / "model") == end_id(folder) != end_id(student)


def test_a_model_that_ends_elsewhere_is_refused(folder: Path) -> None:
    edit_config(folder, eos_token="<|endoftext|>")
    with pytest.raises(UserError, match=r"ends at id 2 .* trained to end with id 0"):
        check_models(chatty(folder), "transformers")


def test_a_tokenizer_without_a_template_is_refused_before_anything_runs(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    made = chatty(folder)
    with pytest.raises(UserError, match=r"no chat template.*--set data\.template=alpaca"):
        check_models(made, "transformers")
    assert not made.encoded.exists()


@pytest.mark.parametrize(
    ("template", "options", "message"),
    [
        (DATED, {}, "inserts today's date.*date_string"),
        (CHATML, {"enable_thinkin": False}, "knows no 'enable_thinkin'"),
        ("{{ ['a', 'b'] | random }}", {}, "at random"),
        ("{{ raise_exception('needs a system turn') }}", {}, "needs a system turn"),
        ("{{ messages }", {}, "cannot render one user turn"),
        ("{{ messages }}", {"messages": "x"}, "cannot render one user turn"),
    ],
)
def test_templates_that_cannot_be_used_are_refused(
    tokenizer: PreTrainedTokenizerFast, template: str, options: dict[str, bool | str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        frame_of(chatting(tokenizer.backend_tokenizer, template), "chat", options)


def test_a_date_can_be_pinned(tokenizer: PreTrainedTokenizerFast) -> None:
    dated = chatting(tokenizer.backend_tokenizer, DATED)
    frame = frame_of(dated, "chat", {"date_string": "26 Jul 2024"})
    assert frame.render(Record("Say", "a", ("x",))) == "26 Jul 2024Say\n\na"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"template": "chat", "truncation": "published"}, "truncation: ours"),
        ({"truncation": "left"}, "ours or published"),
        ({"template": "chatml"}, "template='chatml': alpaca or chat"),
        ({"template_options": {"a": "b"}}, "only template: chat"),
        ({"max_length": 256}, "max_prompt=256 has to be below max_length=256"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(
    tokenizer: PreTrainedTokenizerFast, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        encode_record(tokenizer, Record("a", "", ("b",)), **arguments)


def test_a_bare_tokenizer_has_no_template(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(UserError, match="fast tokenizer of transformers"):
        encode_record(tokenizer.backend_tokenizer, Record("a", "", ("b",)), template="chat")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (["data.template=chat", "data.truncation=published"], r"data: template: chat needs"),
        ([SILENT], "only template: chat"),
        (["data.template=chat"], "a BPE trained here has no chat template"),
        (["data.template=chatml"], "data.template: "),
    ],
)
def test_suites_that_do_not_add_up_are_refused(fields: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_suite("dolly-tiny", fields)


def test_what_moves_a_chats_ids_moves_its_key(folder: Path) -> None:
    keys = [chatty(folder, *more).encoded for more in ((), ("data.template=alpaca",), (SILENT,))]
    assert chatty(folder).encoded == keys[0]
    (folder / "chat_template.jinja").write_text(CHATML.replace("You help", "You may help"))
    keys.append(chatty(folder).encoded)
    edit_config(folder, eos_token="<|endoftext|>")
    keys.append(chatty(folder).encoded)
    assert len(set(keys)) == 5


def test_a_students_folder_is_made_again_where_the_suites_end_is_another(folder: Path) -> None:
    before = chatty(folder).model("student")
    other = folder.parent / "other"
    shutil.copytree(folder, other)
    edit_config(other, eos_token="<|endoftext|>")
    assert chatty(folder, f"tokenizer.path={other}").model("student") != before
