"""Tables made from headers and folders, which `read_listing` takes."""

import numpy as np
import pytest

from imlenet_jax.data.index import Row, challenge_rows, folder_rows, listing_text, read_names
from imlenet_jax.data.listing import read_listing
from imlenet_jax.data.sources import TableFormat
from imlenet_jax.errors import UserError


def header(path, *comments):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "\n".join([f"{path.stem} 1 500 5000", f"{path.stem}.mat 16+24 1000/mV 16 0 0 0 0 I", *comments]) + "\n"
    )


@pytest.fixture
def challenge(tmp_path):
    header(tmp_path / "g1" / "E1.hea", "#Age: 57", "#Sex: Female", "#Dx: 426783006,164889003", "#Rx: Unknown")
    header(tmp_path / "g1" / "E2.hea", "# Age: NaN", "# Sex: M", "# Dx: 164889003,164890007")
    header(tmp_path / "g2" / "E3.hea", "#Age: 300", "#Sex: Unknown", "#Dx: Unknown")
    return tmp_path


def test_headers_of_the_challenge(challenge):
    rows, unnamed = challenge_rows(challenge)
    assert rows == [
        Row("g1/E1", ("426783006", "164889003"), "57", "1"),
        Row("g1/E2", ("164889003", "164890007"), "", "0"),
        Row("g2/E3", ("Unknown",), "", ""),
    ]
    assert not unnamed


def test_codes_are_named_and_merged(challenge, tmp_path):
    (tmp_path / "map.csv").write_text("code,name\n164889003,AF\n164890007,AF\n426783006,SR\n")
    rows, unnamed = challenge_rows(challenge, read_names(tmp_path / "map.csv"))
    assert [row.labels for row in rows] == [("SR", "AF"), ("AF",), ()]
    assert unnamed == {"Unknown": 1}


def test_a_folder_per_class(tmp_path):
    header(tmp_path / "AF" / "deep" / "a.hea")
    (tmp_path / "LBBB").mkdir()
    np.save(tmp_path / "LBBB" / "b.npy", np.zeros((5000, 2)))
    table = TableFormat(500.0, ("I", "II"), "uV")
    assert folder_rows(tmp_path, table) == [Row("AF/deep/a", ("AF",)), Row("LBBB/b.npy", ("LBBB",), format=table)]
    (tmp_path / "imlenet_shards_100").mkdir()
    (tmp_path / "imlenet_shards_100" / "manifest.json").touch()  # of `prepare`, which puts shards beside the table
    path = tmp_path / "records.csv"
    path.write_text(listing_text(folder_rows(tmp_path, table)))
    found = read_listing(path)
    assert found.classes == ("AF", "LBBB") and found.labels == [["AF"], ["LBBB"]]
    assert found.formats == [TableFormat(), table]
    assert found.files == [tmp_path / "AF" / "deep" / "a.hea", tmp_path / "LBBB" / "b.npy"]


def test_columns_that_nobody_fills_are_left_out():
    assert listing_text([Row("a", ("x", "y")), Row("b", ())]).splitlines() == ["record,labels", "a,x;y", "b,"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("1,a\n1,b\n", "row 2 of"), ("1\n", "row 1 of"), ("1,a;b\n", "row 1 of"), ("code,name\n", "names no code")],
)
def test_tables_of_names_that_are_wrong(tmp_path, text, sentence):
    (tmp_path / "map.csv").write_text(text)
    with pytest.raises(UserError, match=sentence):
        read_names(tmp_path / "map.csv")


def test_what_is_not_there_is_named(tmp_path, challenge):
    with pytest.raises(UserError, match="there is no folder"):
        challenge_rows(tmp_path / "none")
    with pytest.raises(UserError, match=r"no header in .* has a line such as '#Dx: 426783006'"):
        challenge_rows(challenge, {"1": "x"})
    with pytest.raises(UserError, match="holds no folders"):
        folder_rows(tmp_path / "g1", TableFormat())
    with pytest.raises(UserError, match=r"there is no .*: --dx_map takes"):
        read_names(tmp_path / "map.csv")
