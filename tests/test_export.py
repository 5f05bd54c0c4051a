"""`kdbench export`: the rows, read by the tools that they are for."""

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import kdbench
from kdbench.base.errors import UserError
from kdbench.cli import main
from kdbench.report.export import Format, export
from kdbench.report.table import leaderboard
from kdbench.runs.folder import Run, find_run
from tests.compare_runs import answer, write_described_run
from tests.synthetic_run import Variant, write_spec

SETS = {"dolly": 5, "vicuna": 4}
VARIANTS = (Variant("amid[alpha=-3]", 60.0, {"alpha": -3.0}), Variant("sft", 54.0, diverged=(1,)))
SECRETS = [b"vicuna question", b"vicuna reference"]
TABLES = {
    "variants", "trials", "scores", "generations", "samples", "logs", "leaderboard", "stability",
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("runs") / "toy"
    return write_described_run(path, VARIANTS, sets=SETS, answers=True, secret=("vicuna",))


@pytest.fixture(scope="module")
def parquet_folder(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(run, "parquet", tmp_path_factory.mktemp("out") / "parquet").path


@pytest.fixture(scope="module")
def csv_folder(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(run, "csv", tmp_path_factory.mktemp("out") / "csv").path


@pytest.fixture(scope="module")
def lm_eval_folder(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(run, "lm-eval", tmp_path_factory.mktemp("out") / "lm-eval").path


def test_parquet_is_read_by_pandas_as_the_frames(run: Run, parquet_folder: Path) -> None:
    frames = kdbench.load_run(run.path)
    assert {path.stem for path in parquet_folder.glob("*.parquet")} == TABLES
    for name in ("scores", "logs", "leaderboard", "generations"):
        read = pd.read_parquet(parquet_folder / f"{name}.parquet")
        pd.testing.assert_frame_equal(read, getattr(frames, name), check_dtype=False)


def test_parquet_columns_have_types_even_where_they_are_empty(parquet_folder: Path) -> None:
    for path in parquet_folder.glob("*.parquet"):
        assert pa.null() not in pq.read_schema(path).types, path
    references = pq.read_schema(parquet_folder / "samples.parquet").field("references")
    assert references.type == pa.list_(pa.string())


def test_duckdb_reads_its_file_and_the_parquet(
    run: Run, parquet_folder: Path, tmp_path: Path
) -> None:
    duckdb = pytest.importorskip("duckdb")
    export(run, "duckdb", tmp_path / "toy.duckdb")
    query = (
        "SELECT variant, avg(value) FROM {} WHERE metric = 'rouge_l' AND \"set\" = 'dolly' "
        "GROUP BY variant ORDER BY variant"
    )
    with duckdb.connect(str(tmp_path / "toy.duckdb"), read_only=True) as database:
        tables = {name for (name,) in database.execute("SHOW TABLES").fetchall()}
        found = database.execute(query.format("scores")).fetchall()
        references = database.execute(
            'SELECT "references"[1] FROM samples WHERE "set" = \'dolly\' AND sample = 2'
        ).fetchone()
        from_parquet = database.execute(
            query.format(f"'{parquet_folder / 'scores.parquet'}'")
        ).fetchall()
    assert tables == TABLES
    assert references == ("dolly reference 2",)
    expected = leaderboard(run).query("metric == 'rouge_l' and set == 'dolly'")
    means = dict(zip(expected["variant"], expected["mean"], strict=True))
    assert dict(found) == pytest.approx(means)
    assert found == from_parquet


def test_csv_holds_every_number_and_line_break(run: Run, csv_folder: Path) -> None:
    frames = kdbench.load_run(run.path)
    scores = pd.read_csv(csv_folder / "scores.csv")
    np.testing.assert_allclose(scores["value"], frames.scores["value"], rtol=1e-15)
    texts = pd.read_csv(csv_folder / "generations.csv")["text"]
    assert texts.tolist() == frames.generations["text"].tolist()
    samples = pd.read_csv(csv_folder / "samples.csv")
    assert json.loads(samples["references"][0]) == ["dolly reference 0", "other"]


def test_withheld_prompts_and_references_stay_out_of_every_file(
    parquet_folder: Path, csv_folder: Path, lm_eval_folder: Path
) -> None:
    for folder in (parquet_folder, csv_folder, lm_eval_folder):
        assert not _found(folder, SECRETS), folder
    samples = pd.read_parquet(parquet_folder / "samples.parquet").set_index("set")
    assert samples.loc["vicuna", ["instruction", "input", "references"]].isna().all(axis=None)
    assert samples.loc["dolly", "instruction"].notna().all()


def test_withheld_prompts_are_written_where_they_are_asked_for(run: Run, tmp_path: Path) -> None:
    export(run, "lm-eval", tmp_path / "out", include_withheld=True)
    assert _found(tmp_path / "out", SECRETS) == set(SECRETS)


def _found(folder: Path, texts: list[bytes]) -> set[bytes]:
    """Those of the texts that stand in some file; Parquet is read, since it is compressed."""
    content = b""
    for path in folder.rglob("*"):
        if path.suffix == ".parquet":
            content += str(pq.read_table(path).to_pylist()).encode()
        elif path.is_file():
            content += path.read_bytes()
    return {text for text in texts if text in content}


def documents(folder: Path, model: str, task: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    (results,) = (folder / model).glob("results_*.json")
    (samples,) = (folder / model).glob(f"samples_{task}_2*.jsonl")
    lines = [json.loads(line) for line in samples.read_text().splitlines()]
    return json.loads(results.read_text()), lines


def test_lm_eval_has_a_folder_per_model_and_a_line_per_document(lm_eval_folder: Path) -> None:
    models = {path.name for path in lm_eval_folder.iterdir() if path.is_dir()}
    assert "amid__alpha=-3__seed-0" in models
    assert len(models) == 8
    _, lines = documents(lm_eval_folder, "sft__seed-0", "dolly")
    assert [line["doc_id"] for line in lines] == [0, 1, 2, 3, 4]
    line = lines[3]
    assert line["doc"]["instruction"] == "dolly question 3"
    assert line["target"] == "dolly reference 3"
    assert line["arguments"]["gen_args_0"]["arg_0"].endswith("context 3\n\n### Response:\n")
    assert line["arguments"]["gen_args_0"]["arg_1"]["max_gen_toks"] == 48
    assert line["resps"] == [[answer("dolly", 3, greedy=False)]]
    assert line["filtered_resps"] == [answer("dolly", 3, greedy=False)]
    assert line["filter"] == "none"


def test_lm_eval_shows_the_user_turn_of_a_chat(run: Run, tmp_path: Path) -> None:
    chat = Run(shutil.copytree(run.path, tmp_path / "chat"))
    settings = ["data.template=chat", "tokenizer={path: there}"]
    write_spec(chat, settings=settings)
    folder = export(chat, "lm-eval", tmp_path / "out").path
    _, lines = documents(folder, "sft__seed-0", "dolly")
    asked = [lines[i]["doc"]["instruction"] + "\n\n" + lines[i]["doc"]["input"] for i in (0, 3)]
    assert [lines[i]["arguments"]["gen_args_0"]["arg_0"] for i in (0, 3)] == [
        text.removesuffix("\n\n") for text in asked
    ]


def test_lm_eval_metrics_are_those_of_the_leaderboard(run: Run, lm_eval_folder: Path) -> None:
    expected = leaderboard(run).query("variant == 'teacher'").set_index(["set", "metric"])
    results, lines = documents(lm_eval_folder, "teacher__seed-0", "dolly_greedy")
    assert np.mean([line["rouge_l"] for line in lines]) == pytest.approx(
        expected.loc[("dolly", "rouge_l_greedy"), "mean"]
    )
    for task, key in (
        ("dolly", ("dolly", "rouge_l")),
        ("dolly_greedy", ("dolly", "rouge_l_greedy")),
        ("average", ("average", "rouge_l")),
        ("average_greedy", ("average", "rouge_l_greedy")),
    ):
        found = results["results"][task]["rouge_l,none"]
        assert found == pytest.approx(expected.loc[key, "mean"]), task
    values = [line["rouge_l"] for line in lines]
    assert results["results"]["dolly_greedy"]["rouge_l_stderr,none"] == pytest.approx(
        np.std(values, ddof=1) / np.sqrt(len(values))
    )


def test_lm_eval_results_hold_what_its_schema_names(lm_eval_folder: Path) -> None:
    results, _ = documents(lm_eval_folder, "sft__seed-2", "vicuna")
    keys = {
        "results", "groups", "group_subtasks", "configs", "versions", "n-shot",
        "higher_is_better", "n-samples", "config", "git_hash", "date", "model_source",
        "model_name", "model_name_sanitized", "task_hashes",
    }  # fmt: skip
    assert keys <= results.keys()
    assert results["group_subtasks"]["average"] == ["dolly", "vicuna"]
    assert results["n-samples"]["vicuna"] == {"original": 4, "effective": 4}
    for task, config in results["configs"].items():
        assert config["output_type"] == "generate_until"
        assert {entry["metric"] for entry in config["metric_list"]} >= {"rouge_l"}, task


def test_lm_evals_own_tools_read_it(lm_eval_folder: Path) -> None:
    utils = pytest.importorskip("lm_eval.utils")
    model = lm_eval_folder / "sft__seed-0"
    files = [path.as_posix() for path in model.iterdir()]
    results = json.loads(
        Path(utils.get_latest_filename(utils.get_results_filenames(files))).read_text()
    )
    tasks = {
        utils.get_file_task_name(Path(name).name)
        for name in utils.get_sample_results_filenames(files)
    }
    assert tasks == results["configs"].keys()
    assert utils.sanitize_model_name(results["model_name"]) == model.name
    if importlib.util.find_spec("pytablewriter"):
        assert "| - dolly" in utils.make_table(results)


def test_datasets_reads_the_samples(lm_eval_folder: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    for task, count in (("dolly", 5), ("vicuna", 4)):
        (path,) = (lm_eval_folder / "sft__seed-0").glob(f"samples_{task}_2*.jsonl")
        rows = datasets.Dataset.from_json(str(path), cache_dir=str(tmp_path))
        assert rows["doc_id"] == list(range(count))


@pytest.mark.parametrize("kind", ["csv", "duckdb"])
def test_an_export_is_replaced_only_by_force(run: Run, tmp_path: Path, kind: Format) -> None:
    pytest.importorskip("duckdb")
    export(run, kind, tmp_path / "out")
    with pytest.raises(UserError, match="--force replaces it"):
        export(run, kind, tmp_path / "out")
    export(run, kind, tmp_path / "out", force=True)


def test_force_replaces_nothing_but_an_export(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("all of it")
    (tmp_path / "table.csv").write_text("mine")
    with pytest.importorskip("duckdb").connect(str(tmp_path / "mine.duckdb")) as database:
        database.execute("CREATE TABLE thesis AS SELECT 1")
    before = (tmp_path / "mine.duckdb").read_bytes()
    targets = [("csv", "mine"), ("parquet", "table.csv"), ("duckdb", "table.csv")]
    for kind, target in [*targets, ("duckdb", "mine.duckdb")]:
        with pytest.raises(UserError, match="not an export"):
            export(run, kind, tmp_path / target, force=True)  # type: ignore[arg-type]
    assert (tmp_path / "mine/thesis.txt").read_text() == "all of it"
    assert (tmp_path / "table.csv").read_text() == "mine"
    assert (tmp_path / "mine.duckdb").read_bytes() == before


def test_an_empty_folder_may_be_the_current_one(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    export(run, "csv", Path())
    assert (tmp_path / "here/export.json").is_file()


def test_a_failed_export_leaves_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(OSError, match="No space"):
        export(run, "parquet", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_library_is_named_with_its_extra(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "duckdb", None)
    with pytest.raises(UserError, match=r"pip install 'kdbench\[export\]'"):
        export(run, "duckdb", tmp_path / "toy.duckdb")


def test_a_board_is_its_tables(run: Run, tmp_path: Path) -> None:
    board = tmp_path / "boards" / "toy"
    board.mkdir(parents=True)
    shutil.copyfile(run.path / "spec.yaml", board / "spec.yaml")
    frames = kdbench.load_run(run.path)
    frames.leaderboard.to_csv(board / "leaderboard.csv", index=False)
    frames.stability.to_csv(board / "stability.csv", index=False)
    assert export(find_run("boards/toy", tmp_path), "csv", tmp_path / "out").rows.keys() == {
        "leaderboard",
        "stability",
    }
    with pytest.raises(UserError, match="no answers"):
        export(Run(board), "lm-eval", tmp_path / "lm")


def test_an_unfinished_run_is_refused_and_a_half_finished_one_is_said(
    run: Run, tmp_path: Path
) -> None:
    copy = Run(Path(shutil.copytree(run.path, tmp_path / "copy")))
    (copy.path / "trials/sft/seed-2/DONE.json").unlink()
    assert export(copy, "csv").open_trials == 1
    for path in copy.path.glob("trials/*/seed-*/DONE.json"):
        path.unlink()
    for kind in ("parquet", "lm-eval"):
        with pytest.raises(UserError, match="finished trial"):
            export(copy, kind)  # type: ignore[arg-type]
    assert not (copy.path / "export/parquet").exists()


def test_the_command_says_what_it_wrote_and_left_out(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["export", str(run.path), "--format", "csv", "--output", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert stop.value.code == 0
    assert f"exported to {tmp_path}/out: 4 variants, 8 trials" in printed
    assert "left out: prompts and references of vicuna" in printed
    assert json.loads((tmp_path / "out/export.json").read_text())["withheld"] == ["vicuna"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent", "--format", "csv"], "no run 'absent'"),
        (["RUN", "--format", "excel"], "'excel' is not one of"),
        (["RUN"], "Missing option '--format'"),
        (["RUN", "--format", "csv", "--output", "afile/out"], "afile"),
        (["RUN", "--format", "csv", "--output", "afile"], "not an export"),
    ],
)
def test_bad_input_is_refused(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("afile").write_text("mine")
    with pytest.raises(SystemExit) as stop:
        main(["export", *(word.replace("RUN", str(run.path)) for word in arguments)])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert Path("afile").read_text() == "mine"
