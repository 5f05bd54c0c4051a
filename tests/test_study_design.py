"""What `kdbench study` expands to, and what it refuses."""

from pathlib import Path

import pytest
import yaml

from kdbench.base.errors import UserError
from kdbench.config.load import load_suite
from kdbench.pipeline.plan import Request, make_plan
from kdbench.runs.folder import find_run
from kdbench.study.design import check_same_study, find_study, read_design, write_design
from kdbench.study.expand import Question, make_design
from kdbench.variants.variant import parse


def test_default_study_of_alpha_is_a_full_grid_for_two_students() -> None:
    design, variants = make_design(Question("alpha"))
    assert design.objective == "amid"
    assert len(design.cells) == len(design.values) * 8
    assert [float(value) for value in design.values] == sorted(map(float, design.values))
    assert len(design.students) == 2
    assert not design.left_out
    assert len(variants) == len(design.cells) + 5  # forward, reverse, two alpha-betas, sft


def test_default_students_have_another_width_and_the_same_teacher() -> None:
    design, _ = make_design(Question("alpha"))
    suites = [load_suite("instruct", settings) for settings in design.students.values()]
    architectures = [suite.student.architecture for suite in suites]
    assert len({item.width for item in architectures if item is not None}) == 2
    assert len({suite.teacher for suite in suites}) == 1


def test_every_cell_is_its_variant() -> None:
    design, _ = make_design(Question("alpha", values="-3,1", by=("order=pr,qr",)))
    assert list(design.factors) == ["order"]
    for cell in design.cells:
        params = parse(cell.variant).params
        assert (params["alpha"], params["order"]) == (float(cell.value), cell.setting[0])


def test_special_cases_belong_to_the_settings_they_are_cases_of() -> None:
    design, _ = make_design(Question("alpha"))
    by = {item.label: item for item in design.comparators}
    assert {setting[:2] for setting in by["reverse-kl"].settings} == {("forward-kl", "qr")}
    assert len(by["sft"].settings) == len(by["alpha=-1"].settings) == len(design.settings)


def test_combinations_that_the_objective_refuses_are_left_out_and_named() -> None:
    question = Question("teacher_weight", objective="amid", values="0,0.5", by=("order=pr,qr",))
    design, _ = make_design(question)
    assert [(cell.value, cell.setting[0]) for cell in design.cells] == [
        ("0", "pr"),
        ("0.5", "pr"),
        ("0.5", "qr"),
    ]
    assert "teacher_weight=0" in design.left_out[0]
    assert "order=qr is always 0" in design.left_out[0]


def test_a_value_that_is_refused_in_every_setting_is_no_value_of_the_study() -> None:
    question = Question("teacher_weight", objective="amid", values="0,0.3,0.5", by=("order=qr",))
    assert make_design(question)[0].values == ("0.3", "0.5")


def test_a_value_is_compared_with_where_the_objective_takes_it() -> None:
    grid = {"objective": "amid", "values": "0,0.3,0.5", "by": ("order=pr,qr",)}
    design, _ = make_design(Question("teacher_weight", against=("teacher_weight=0",), **grid))  # type: ignore[arg-type]
    assert design.comparators[0].settings == (("pr",),)
    with pytest.raises(UserError, match="0 is not among the values of the study there"):
        make_design(Question("teacher_weight", against=("teacher_weight=0:order=qr",), **grid))  # type: ignore[arg-type]


def test_a_usual_comparator_that_fits_no_setting_is_left_out_and_named() -> None:
    design, _ = make_design(Question("alpha", by=("divergence=kl",)))
    assert any("alpha-beta" in text for text in design.left_out)
    assert "alpha-beta" not in {item.label for item in design.comparators}


def test_a_word_is_varied_over_its_choices() -> None:
    design, _ = make_design(Question("order", objective="amid", suite="dolly-tiny"))
    assert design.values == ("pr", "qr", "rp", "rq")
    assert not design.numeric
    assert design.settings == ((),)
    assert design.students == {"student": ()}


def test_source_and_fixed_parameters_of_the_objective_stay() -> None:
    question = Question("alpha", objective="amid[order=qr]@mixed", values="-1,1", by=("order=rq",))
    _, variants = make_design(question)
    cells = variants[:2]
    assert all(item.sequences.name == "mixed" for item in cells)


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (Question("alpah"), "did you mean alpha"),
        (Question("teacher_weight"), "amid, skew-kl, skew-reverse-kl"),
        (Question("beta", objective="amid"), "these objectives have: alpha-beta, jsd"),
        (Question("alpha", objective="alpha-beta"), "declares no grid for alpha"),
        (Question("alpha", values="-5"), "two values at least"),
        (Question("alpha", values="-5,-5.0"), "two values at least"),
        (Question("alpha", values="-5,much"), "is not a number"),
        (Question("alpha", by=("order",)), "write PARAMETER=VALUE"),
        (Question("alpha", by=("ordr=pr",)), "did you mean order"),
        (Question("alpha", by=("alpha=1",)), "already has its values"),
        (Question("alpha", by=("order=pr", "order=qr")), "already has its values"),
        (Question("alpha", by=("order=pp",)), "is not one of pr, qr, rp, rq"),
        (Question("alpha", against=("forward-kll",)), "did you mean forward-kl"),
        (Question("alpha", against=("alpha=7",)), "not among the values"),
        (Question("alpha", against=("sft:order=rp",)), "no setting of the study"),
        (Question("alpha", students=("a", "a")), "two students of that name"),
        (Question("alpha", students=("plots",)), "folder of the study's plots"),
        (Question("alpha", students=("a=width",)), "write NAME=FIELD:VALUE"),
    ],
)
def test_what_cannot_be_studied_is_refused(question: Question, message: str) -> None:
    with pytest.raises(UserError, match="(?s)" + message.replace("|", r"\|")):
        make_design(question)


def test_design_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    design, _ = make_design(Question("alpha"))
    write_design(tmp_path / "study", design)
    assert find_study("study", tmp_path) == tmp_path / "study"
    assert read_design(tmp_path / "study") == design


def test_a_study_does_not_become_another_one(tmp_path: Path) -> None:
    write_design(tmp_path, make_design(Question("alpha"))[0])
    check_same_study(tmp_path, make_design(Question("alpha", values="-5,1"))[0])
    other, _ = make_design(Question("order", objective="amid"))
    with pytest.raises(UserError, match=r"parameter: .*alpha.* -> .*order"):
        check_same_study(tmp_path, other)


def test_a_studys_folder_is_no_run(tmp_path: Path) -> None:
    write_design(tmp_path / "study", make_design(Question("alpha"))[0])
    (tmp_path / "study" / "w64").mkdir()
    (tmp_path / "study" / "w64" / "spec.yaml").touch()
    with pytest.raises(UserError, match="is a study; its runs are: study/w64"):
        find_run("study", tmp_path)
    with pytest.raises(UserError, match="is a study; give the run another --name"):
        make_plan(Request("instruct", name="study", out=tmp_path, backend="transformers"))


def test_a_runs_folder_is_no_study(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump({}))
    with pytest.raises(UserError, match="is a run"):
        check_same_study(tmp_path, make_design(Question("alpha"))[0])


@pytest.mark.parametrize("text", ["", "{", "version: 1\n", "- 1\n"])
def test_a_broken_design_is_said_to_be_one(tmp_path: Path, text: str) -> None:
    (tmp_path / "study.yaml").write_text(text)
    with pytest.raises(UserError, match="not the design of a study"):
        read_design(tmp_path)
