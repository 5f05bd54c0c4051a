"""Digests beside what is kept: damage of any byte is found, and what is whole is read once."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdbench.base.seal import (
    DIGESTS,
    DamagedError,
    check_folder,
    check_sealed,
    is_sealed,
    quick_digest,
    quick_digest_of,
    seal_file,
    sealed_folder,
    sidecar,
)

FILES = {"model.safetensors": bytes(range(256)) * 20, "config.json": b"{}", "sub/empty": b""}


def write(path: Path) -> Path:
    with sealed_folder(path) as folder:
        for name, content in FILES.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
    return path


@given(st.data())
def test_a_changed_byte_of_any_file_is_found(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = write(tmp_path_factory.mktemp("cache") / "made")
    check_folder(folder)
    path = folder / data.draw(st.sampled_from([*FILES, DIGESTS]))
    content = bytearray(path.read_bytes() or b"\0")
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(bytes(content))
    with pytest.raises(DamagedError, match="made"):
        check_folder(folder)


@pytest.mark.parametrize("name", [*FILES, DIGESTS])
def test_a_missing_file_is_found(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path / "made")
    (folder / name).unlink()
    with pytest.raises(DamagedError, match=Path(name).name):
        check_folder(folder, only=())


def test_a_file_of_its_own_is_sealed_by_the_digest_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "dolly.jsonl"
    path.write_text("{}\n")
    assert not is_sealed(path)
    seal_file(path)
    assert is_sealed(path)
    check_sealed(path)
    sidecar(path).write_bytes(b"\xff")
    with pytest.raises(DamagedError, match="damaged"):
        check_sealed(path)


@given(st.binary(max_size=100))
def test_a_file_and_its_bytes_have_one_digest(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("file") / "x"
    path.write_bytes(content)
    assert quick_digest(path) == quick_digest_of(content)
