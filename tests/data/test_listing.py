"""`records.csv`: what it means, and every way in which it can be wrong."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imlenet_jax.data.listing import deal_fold, read_listing
from imlenet_jax.data.sources import TableFormat
from imlenet_jax.errors import UserError


@pytest.fixture
def listing(tmp_path):
    """Write a table, given as lines, and read it."""

    def read(*lines, root=None, classes=None, encoding="utf-8"):
        path = tmp_path / "records.csv"
        path.write_bytes("\n".join(lines).encode(encoding))
        return read_listing(path, root, classes)

    return read


def test_labels_in_columns(listing, tmp_path):
    found = listing("record,age,sex,AF,LBBB,site", "a/1,50,1,1,0,x", "a/2.csv,,0,1,1,y", "3.mat,9,1,0,0,x")
    assert found.classes == ("AF", "LBBB")
    assert found.labels == [["AF"], ["AF", "LBBB"], []]
    assert found.files == [tmp_path / "a/1.hea", tmp_path / "a/2.csv", tmp_path / "3.hea"]
    assert found.about == {"age": ["50", "", "9"], "sex": ["1", "0", "1"], "site": ["x", "y", "x"]}
    assert found.dealt and found.patient == found.record == ["a/1", "a/2.csv", "3.mat"]


def test_labels_in_one_column(listing, tmp_path):
    found = listing("record;labels;patient_id", '1;"AF; LBBB;AF";p', "2;;p", "3;STEMI;q", root=tmp_path / "elsewhere")
    assert found.classes == ("AF", "LBBB", "STEMI")
    assert found.labels == [["AF", "LBBB"], [], ["STEMI"]]
    assert found.files[0] == tmp_path / "elsewhere" / "1.hea"
    assert found.fold[0] == found.fold[1] == deal_fold("p")
    assert found.about == {"patient_id": ["p", "p", "q"]}


def test_chosen_labels_keep_their_order(listing):
    assert listing("record,labels", "1,b", "2,a;c", classes=("c", "b")).labels == [["b"], ["c"]]
    found = listing("record,a,b,c", "1,1,0,1", "2,0,1,5", classes=("b", "a"))
    assert (found.classes, found.labels) == (("b", "a"), [["a"], ["b"]])
    assert found.about == {"c": ["1", "5"]}


def test_folds_and_splits(listing):
    found = listing("record,fold,a", "1,10,1", "2,3,0")
    assert found.fold.tolist() == [10, 3] and not found.dealt
    assert listing("record,split,a", "1,train,1", "2,val,0", "3,test,0").fold.tolist() == [1, 9, 10]


def test_tables_say_what_they_are(listing):
    found = listing("record,sampling_rate,leads,unit,a", "1.csv,250,I II V1,uV,1", "2.npy,500,I;V2,,0", "3,,,,0")
    assert found.formats == [
        TableFormat(250.0, ("I", "II", "V1"), "uV"),
        TableFormat(500.0, ("I", "V2"), None),
        TableFormat(),
    ]


def test_folds_are_dealt_by_a_hash_of_the_name():
    assert [deal_fold(name) for name in ("p1", "p2", "p3", "Ä")] == [
        deal_fold(name) for name in ("p1", "p2", "p3", "Ä")
    ]
    counts = np.bincount([deal_fold(str(number)) for number in range(5000)], minlength=11)
    assert counts[0] == 0 and counts[1:].min() > 420 and counts[1:].max() < 580
    assert [deal_fold(str(number)) for number in range(8)] == DEALT


DEALT = [1, 4, 7, 4, 5, 4, 10, 1]  # the same on every machine


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (["name,a", "1,0"], r"has no column 'record'"),
        (["record,a"], r"lists no recordings"),
        (["record,a,a", "1,0,1"], r"has 2 columns called 'a'"),
        (["record,a", "1,0", "1,1"], r"lists 1 twice, in lines 2 and 3"),
        (
            ["record,a", "../1,0"],
            r"record of line 2 of .* is '../1', which is not the path of a recording inside --root",
        ),
        (["record,a", "/etc/1,0"], r"which is not the path of a recording inside --root"),
        (["record,a", "1,0,1"], r"line 2 of .* has 3 cells, but there are 2 columns"),
        (["record,a,fold", "1,0,11"], r"fold of line 2 of .* is '11', which is not a fold from 1 to 10"),
        (["record,a,split", "1,0,dev"], r"is 'dev', which is not one of train, val, test"),
        (["record,a,split,fold", "1,0,val,9"], r"has both columns, 'fold' and 'split'"),
        (["record,a,patient_id", "1,0,p", "2,1,"], r"patient_id of line 3 of .* is empty"),
        (["record,a,patient_id,fold", "1,0,p,1", "2,1,p,2"], r"records of patient 'p' in folds 1 and 2"),
        (["record,age", "1,50"], r"has no labels: add columns of 0 and 1, or one 'labels'"),
        (["record,labels", "1,"], r"has no labels"),
        (["record,a,unit", "1.csv,0,kV"], r"unit of line 2 of .* is 'kV', which is not mV, uV or V"),
        (["record,a,sampling_rate", "1.csv,0,-5"], r"sampling_rate of line 2 .* which is not a rate in Hz"),
        (["record,a", '"1,0'], r"is not a readable CSV file"),
    ],
)
def test_what_is_wrong_is_named(listing, lines, sentence):
    with pytest.raises(UserError, match=sentence):
        listing(*lines)


@pytest.mark.parametrize(
    ("lines", "classes", "sentence"),
    [
        (["record,a", "1,2"], ("a",), r"a of line 2 of .* is '2', which is not 0 or 1"),
        (["record,a", "1,1"], ("b",), r"has no column 'b': its columns are record, a"),
        (["record,labels", "1,x"], ("y",), r"no record of .* has the label y: its labels are x"),
        (["record,a", "1,1"], ("a", "a"), r"--labels names a twice"),
    ],
)
def test_labels_that_are_not_there_are_named(listing, lines, classes, sentence):
    with pytest.raises(UserError, match=sentence):
        listing(*lines, classes=classes)


def test_another_encoding_and_no_file(listing, tmp_path):
    with pytest.raises(UserError, match="is not a text file in UTF-8"):
        listing("record,Größe", "1,1", encoding="latin-1")
    with pytest.raises(UserError, match=r"there is no .*none.csv: --records takes a table"):
        read_listing(tmp_path / "none.csv")


@given(text=st.text('record,ab;01\t"\n fold1labels-./', max_size=80))
def test_any_text_is_a_listing_or_one_sentence(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("any") / "records.csv"
    path.write_text("record" + text)
    try:
        found = read_listing(path)
    except UserError as error:
        assert "\n" not in str(error).replace(repr(text), "")[:20]
        return
    assert len(found) == len(found.labels) == len(found.fold) == len(set(found.record))
    assert all(set(labels) <= set(found.classes) for labels in found.labels)
