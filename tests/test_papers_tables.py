"""The published tables as data: every row, and what is wrong with a broken file."""

from pathlib import Path

import pytest

from kdbench.base.errors import UserError
from kdbench.compare.published import FILE, load_published
from kdbench.compare.reproduction import variants_of
from kdbench.variants.variant import parse


def test_every_row_is_a_variant_of_kdbench() -> None:
    for table in load_published().tables:
        names, lacking = variants_of(table)
        assert lacking == {}
        assert set(names) == set(table.rows)


def test_what_is_inferred_of_amid_is_the_preset() -> None:
    row = load_published().table("amid-table-1").rows["amid"]
    assert row.variant is not None
    assert parse(row.variant).full_name == parse("amid-paper").full_name


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("17.69, 18.99]", "17.69, 19.99]", "table abkd: row forward-kl: average: 17.15"),
        ("17.69, 18.99]", "17.69]", "table abkd: row forward-kl: mean: 4 cells for 5"),
        ("17.69, 18.99]", "17.69, 189.9]", "table abkd: rows: forward-kl: mean: uinst"),
        ("17.69, 18.99]", "x, 18.99]", "table abkd: rows: forward-kl: mean: sinst"),
        ("id: abkd-baselines", "id: abkd", "table abkd: stands there twice"),
        ("    confidence: A", "    confidence: D", "table abkd: confidence"),
        ("    std: five", "    note: five", "the table does not say what its deviations cover"),
        ("variant: forward-kl, mean", "variant: null, mean", "lacks does not say why"),
        ("tables:", "tables: [", "not YAML"),
    ],
)
def test_broken_data_names_file_table_and_cell(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = tmp_path / "broken.yaml"
    text = FILE.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(UserError) as error:
        load_published(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)
