"""Files that appear whole or not at all, CSV files that must be what they should be, and transactions."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.examples.conftest import EXAMPLES, listed

COLUMNS = {"carrier": "VARCHAR", "flights": "INTEGER"}


@pytest.fixture
def files(example):
    from flights_lib import files

    return files


def run_and_be_killed(code: str, *arguments: str) -> None:
    """Run code that ends by killing its own process, as `kill -9` would."""
    prelude = f"import sys; sys.path.insert(0, {str(EXAMPLES)!r}); from flights_lib.files import *; from pathlib import Path\n"
    die = "import os, signal\ndef die(): os.kill(os.getpid(), signal.SIGKILL)\n"
    done = subprocess.run(
        [sys.executable, "-c", prelude + die + code, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_a_file_takes_its_name_only_when_it_is_complete(files, tmp_path):
    path = tmp_path / "deep" / "file.txt"
    with files.written_whole(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
        assert temporary.parent == path.parent  # a rename across file systems is not atomic
    assert path.read_text() == "whole"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.txt"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(files, tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(OSError, match="disk"), files.written_whole(path) as temporary:
        temporary.write_text("ne")
        raise OSError("disk")
    assert path.read_text() == "old"
    assert listed(tmp_path) == ["file.txt"]


def test_the_content_is_on_the_disk_before_the_name_is(files, tmp_path, monkeypatch):
    path, order = tmp_path / "file.txt", []
    monkeypatch.setattr(files, "sync", lambda what: order.append((what == tmp_path, path.exists())))
    with files.written_whole(path) as temporary:
        temporary.write_text("whole")
    assert order == [(False, False), (True, True)]


def test_what_a_killed_attempt_left_is_cleared_away_by_the_next(files, tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    (tmp_path / "other.txt").write_text("not mine")
    run_and_be_killed(
        "with written_whole(Path(sys.argv[1])) as t:\n    t.write_text('half'); t.with_name(t.name + '.wal').write_text('x'); die()",
        str(path),
    )
    assert path.read_text() == "old"
    assert len(listed(tmp_path)) == 4
    with files.written_whole(path) as temporary:
        temporary.write_text("new")
    assert (listed(tmp_path)) == ["file.txt", "other.txt"]
    assert path.read_text() == "new"


def test_two_threads_never_write_into_one_temporary_file(files, tmp_path):
    names, both = [], threading.Barrier(2, timeout=10)

    def write():
        with files.scratch(tmp_path / "file.txt") as temporary:
            names.append(temporary)
            both.wait()

    threads = [threading.Thread(target=write) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(names)) == 2


def read_csv(files, tmp_path: Path, content: str) -> list:
    path = tmp_path / "table.csv"
    path.write_text(content)
    with files.connect() as db:
        return files.rows(db, f"FROM {files.csv_source(path, COLUMNS)}")


def test_a_csv_file_is_read_with_its_types_quotes_and_gaps(files, tmp_path):
    read = read_csv(files, tmp_path, 'carrier,flights\n"A, Inc.",1\nNA,2\n,NA\n"say ""hi""",007\n')
    assert read == [("A, Inc.", 1), (None, 2), (None, None), ('say "hi"', 7)]


@pytest.mark.parametrize(
    "content",
    [
        "flights,carrier\n1,AA\n",
        "carrier\nAA\n",
        "carrier,flights,more\nAA,1,2\n",
        "carrier,arrivals\nAA,1\n",
        "",
        "AA,1\n",
    ],
)
def test_other_columns_than_expected_are_an_error_that_lists_them(files, tmp_path, content):
    with pytest.raises(ValueError, match=r"table\.csv has the columns .*; expected carrier, flights"):
        read_csv(files, tmp_path, content)


def test_a_value_of_the_wrong_type_is_an_error_that_says_where(files, tmp_path):
    import duckdb

    with pytest.raises(duckdb.ConversionException, match=r'Line: 3[\s\S]*column "flights"[\s\S]*"many"'):
        read_csv(files, tmp_path, "carrier,flights\nAA,1\nBB,many\n")


def test_a_line_of_the_wrong_length_is_an_error_that_says_where(files, tmp_path):
    import duckdb

    with pytest.raises(duckdb.InvalidInputException, match="Line: 3"):
        read_csv(files, tmp_path, "carrier,flights\nAA,1\nBB\n")


def test_a_path_may_hold_quotes_and_spaces(files, tmp_path):
    folder = tmp_path / "it's a folder"
    folder.mkdir()
    with files.connect() as db:
        files.save(db, "SELECT 42 AS answer", folder / "a 'file'.parquet")
    with files.connect(t=str(folder / "a 'file'.parquet")) as db:
        assert files.rows(db, "FROM t") == [(42,)]


def test_a_transaction_that_fails_leaves_nothing(files, tmp_path):
    path = tmp_path / "t.duckdb"
    files.create_database(path, "CREATE TABLE t AS SELECT 1 AS x")
    with pytest.raises(RuntimeError, match="no"), files.database(str(path)) as db:
        files.rows(db, "DELETE FROM t")
        raise RuntimeError("no")
    with files.database(str(path)) as db:
        assert files.rows(db, "FROM t") == [(1,)]


def test_a_database_is_created_once_and_with_all_that_is_in_it(files, tmp_path):
    path = tmp_path / "t.duckdb"
    run_and_be_killed(
        "import flights_lib.files as f\nf.sync = lambda path: die()\ncreate_database(Path(sys.argv[1]), 'CREATE TABLE t (x INT)')",
        str(path),
    )
    assert not path.exists()
    (tmp_path / "t.duckdb.wal").write_bytes(b"of a database that somebody deleted")
    files.create_database(path, "CREATE TABLE t AS SELECT 1 AS x")
    files.create_database(path, "CREATE TABLE t AS SELECT 2 AS x")  # is there already
    with files.database(str(path)) as db:
        assert files.rows(db, "FROM t") == [(1,)]
    assert listed(tmp_path) == ["t.duckdb"]


@pytest.mark.parametrize(("moment", "kept"), [("", [(1,)]), ("db.commit(); ", [(2,)])], ids=["before", "after"])
def test_a_process_killed_before_or_after_its_commit_leaves_none_or_all_of_it(files, tmp_path, moment, kept):
    path = tmp_path / "t.duckdb"
    files.create_database(path, "CREATE TABLE t AS SELECT 1 AS x")
    run_and_be_killed(
        f"with database(sys.argv[1]) as db:\n    rows(db, 'UPDATE t SET x = 2'); {moment}die()",
        str(path),
    )
    with files.database(str(path)) as db:
        assert files.rows(db, "FROM t") == kept
    assert listed(tmp_path) == ["t.duckdb"]


def test_a_file_held_by_another_process_is_an_error_and_free_when_that_is_killed(files, tmp_path):
    import duckdb

    path = tmp_path / "t.duckdb"
    files.create_database(path, "CREATE TABLE t AS SELECT 1 AS x")
    code = "import duckdb, sys; db = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(duckdb.IOException, match="lock"), files.database(str(path)):
            pass
        holder.kill()
        holder.wait()
    with files.database(str(path)) as db:
        assert files.rows(db, "FROM t") == [(1,)]


def test_duckdb_writes_nothing_to_the_terminal(files):
    with files.connect() as db:
        assert files.rows(db, "SELECT current_setting('enable_progress_bar')") == [(False,)]
