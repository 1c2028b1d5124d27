"""What all commands share: how they end, and the types of their flags."""

import argparse
import errno
import os
import subprocess
import sys

import pytest

from experiments.cli import Parser, boolean, check_folds, execute, folds, number, positive_float
from imlenet_jax.errors import UserError


@pytest.fixture
def ended(capsys):
    """The exit status and the error output of a command that raises an error."""

    def end(error):
        def run(_):
            raise error

        with pytest.raises(SystemExit) as status:
            execute(Parser(), run, [])
        return status.value.code, capsys.readouterr().err

    return end


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.ENOSPC, "No space left on device (there): free space there or choose another folder"),
        (errno.EFBIG, "File too large (there): free space there"),
        (errno.EROFS, "Read-only file system (there): choose a folder that you may write to"),
        (errno.EACCES, "Permission denied (there): choose a folder"),
        (errno.ENOTDIR, "Not a directory (there): a file is where a folder is needed"),
        (errno.EEXIST, "File exists (there): a file is where a folder is needed"),
        (errno.ENOENT, "No such file or directory (there): it was there before or should be"),
    ],
)
def test_an_error_of_the_file_system_is_one_sentence(ended, code, advice):
    status, text = ended(OSError(code, os.strerror(code), "there"))
    assert status == 2 and text.startswith(f"error: {advice}") and text.count("\n") == 1


def test_other_ends(ended):
    assert ended(UserError("wrong")) == (2, "error: wrong\n")
    assert ended(KeyboardInterrupt()) == (130, "interrupted\n")
    sentence = "error: the memory does not suffice: choose a smaller --batchsize or a smaller network\n"
    assert ended(MemoryError()) == ended(RuntimeError("RESOURCE_EXHAUSTED: 16 TB")) == (2, sentence)


def test_names_from_files_do_not_break_the_line_or_speak_to_the_terminal(ended):
    assert ended(UserError("a\nb\x1b[31m\x9b\u2028 é")) == (2, "error: a\\nb\\x1b[31m\\x9b\\u2028 é\n")


def test_folds_that_are_apart_pass_and_others_are_named():
    check_folds(train_folds=(1, 2), val_folds=(9,), test_folds=(10,))
    with pytest.raises(UserError, match="--val_folds shares fold 3 with --test_folds: choose folds that are apart"):
        check_folds(train_folds=(1, 2), val_folds=(3, 4), test_folds=(4, 3))


@pytest.mark.parametrize("error", [OSError(errno.EBADF, "Bad file descriptor"), RuntimeError("INTERNAL"), KeyError(1)])
def test_mistakes_of_ours_keep_their_traceback(error):
    def run(_):
        raise error

    with pytest.raises(type(error)):
        execute(Parser(), run, [])


def test_a_reader_that_has_gone_is_no_error():
    program = "from experiments.cli import *; execute(Parser(), lambda _: print('x' * 10**6), [])"
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-c", program], stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def test_flag_types():
    assert folds("1-3,9") == (1, 2, 3, 9) and folds("10") == (10,)
    assert boolean("False") is False and boolean("true") is True
    assert number("-1e-3") == -0.001 and positive_float("2") == 2


@pytest.mark.parametrize(("kind", "text"), [(number, "nan"), (number, "x"), (positive_float, "0"), (number, "inf")])
def test_flags_that_are_no_numbers(kind, text):
    with pytest.raises(argparse.ArgumentTypeError, match=f"'{text}' is not a (finite )?number"):
        kind(text)
