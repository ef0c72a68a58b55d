"""`run` and `resume` as processes: results, kill -9, Ctrl-C, JSON, a terminal. One of each with an interpreter of its own."""

from __future__ import annotations

import os
import pty
import re
import signal
import threading
from pathlib import Path
from typing import Any

from tests.cli.command import Command, collect, without_colours


def test_a_run_tells_its_progress_its_result_and_its_figures(holdfast: Command) -> None:
    holdfast.open_gate()
    ended = holdfast("run", "work.py:steps", "n=2", "label=yes", fresh=True)
    assert ended.code == 0, ended
    assert ended.err == ""
    lines = ended.out.splitlines()
    assert re.fullmatch(r"steps: new run steps-\w{6}", lines[0])
    assert [re.sub(r"^\[.{8}\] (done \d+/\d+  \S+) in .*", r"\1", line) for line in lines[1:5]] == [
        "done 1/2  step~1/step#1",
        "done 2/2  step~2/step#1",
        "done 3/3  gated#1",
        "done 4/4  step#1",
    ]
    assert "✔ steps completed in" in ended.out
    assert "  total: 6\n  names: a, b\n  text:\n    yes\n    second line\n" in ended.out
    assert re.search(r"^  step +3 +3 +3 +0 ", ended.out, re.MULTILINE)
    assert not re.search(r"\s$", ended.out.replace("\n", "#")), "no line ends in spaces"
    assert "\x1b" not in ended.out


def test_kill_9_and_the_same_command_again_goes_on(holdfast: Command) -> None:
    started = holdfast.start("run", "work.py:steps", "n=3", fresh=True)
    started.wait_for("done 3/")
    started.until(lambda: "gated3" in holdfast.effects(), "the gated task began")
    started.signal(signal.SIGKILL)
    assert started.end().code == -signal.SIGKILL
    holdfast.open_gate()
    ended = holdfast("run", "work.py:steps", "n=3")
    assert ended.code == 0, ended
    assert "3 of 5 tasks were already done, not run again" in ended.out
    assert "1 attempt was cut off by a stop or a crash and begun again" in ended.out
    assert sorted(holdfast.effects()) == ["gated3", "gated3", "step0", "step1", "step2", "step4"]


def test_other_arguments_are_another_run(holdfast: Command) -> None:
    holdfast.open_gate()
    started = [holdfast("run", "work.py:quick", f"n={n}", "--json").json() for n in (1, 2, 1)]
    assert len({each["run"] for each in started}) == 3, "those that have ended are not continued"
    assert [each["result"] for each in started] == [1, 2, 1]


def test_an_id_attaches_also_to_a_run_that_has_ended(holdfast: Command) -> None:
    first = holdfast("run", "work.py:quick", "--id", "q1", "--json").json()
    again = holdfast("run", "work.py:quick", "--id", "q1", "--json").json()
    assert first["run"] == again["run"] == "q1"
    assert first["tasks"]["done_now"] == 1
    assert (again["tasks"]["done_before"], again["tasks"]["done_now"]) == (1, 0)
    assert again["result"] == first["result"] == 1
    assert holdfast.effects() == ["step1"]
    said = holdfast("run", "work.py:quick", "--id", "q1")
    assert "completed before; nothing was left to do" in said.out


def test_json_is_one_document_whatever_else_is_printed(holdfast: Command) -> None:
    ended = holdfast("run", "work.py:printing", "--json")
    assert ended.code == 0, ended
    document = ended.json()
    assert document["status"] == "completed"
    assert document["result"] == 1
    assert document["elapsed_seconds"] > 0
    assert document["tasks"]["by_name"][0]["name"] == "loud"
    assert ended.out.count("\n") == 1
    assert "loud on stdout" in ended.err
    assert "loud from a child process" in ended.err


def test_retries_are_told_and_counted(holdfast: Command) -> None:
    ended = holdfast("run", "work.py:retrying", "times=2")
    assert ended.code == 0, ended
    assert "unlucky#1: attempt 2 failed: ConnectionError: refused [by] 2" in ended.out
    assert re.search(r"^  unlucky +1 +1 +3 +2 ", ended.out, re.MULTILINE)


def test_a_task_that_fails_for_good_fails_the_run(holdfast: Command) -> None:
    ended = holdfast("run", "work.py:retrying", "times=9")
    assert ended.code == 1, ended
    assert "failed  unlucky#1 after 3 attempts: ConnectionError: refused [by] 9" in ended.out
    assert "✘ retrying failed after" in ended.out
    assert 'work.py", line' in ended.out
    assert "engine/" not in ended.out, "no frame of the engine"
    assert ended.err == ""


def test_a_failed_run_shows_error_cause_and_the_users_lines(holdfast: Command) -> None:
    ended = holdfast("run", "work.py:failing", "day=2026-01-31")
    assert ended.code == 1, ended
    assert "  ValueError: two checks failed on 2026-01-31:\n    - rows\n    - keys\n" in ended.out
    assert "  caused by KeyError: 'lost'" in ended.out
    assert 'raise KeyError("lost")' in ended.out
    assert "engine/" not in ended.out
    document = holdfast("run", "work.py:failing", "day=2026-01-31", "--json").json()
    assert (document["status"], document["error"]["type"], document["result"]) == ("failed", "ValueError", None)


def test_a_result_that_cannot_be_recorded_fails_the_run(holdfast: Command) -> None:
    ended = holdfast("run", "work.py:unrecordable")
    assert ended.code == 1, ended
    assert "the result of workflow 'unrecordable' cannot be written as typed JSON" in ended.out


def test_ctrl_c_leaves_a_run_that_resumes_and_says_how(holdfast: Command) -> None:
    started = holdfast.start("run", "work.py:steps", "n=2", "--grace", "0.1", fresh=True)
    started.wait_for("done 2/")
    started.until(lambda: "gated2" in holdfast.effects(), "the gated task began")
    started.signal(signal.SIGINT)
    ended = started.end()
    assert ended.code == 130, ended
    assert "stopping: running tasks have 0.1 s to end" in ended.out
    assert "2 of the 3 tasks so far are done, and will not be run again" in ended.out
    assert "Traceback" not in ended.out + ended.err
    command = re.search(r"^    holdfast (resume work\.py:steps steps-\w{6})$", ended.out, re.MULTILINE)
    assert command, ended
    holdfast.open_gate()
    resumed = holdfast(*command[1].split())
    assert resumed.code == 0, resumed
    assert "2 of 4 tasks were already done, not run again" in resumed.out


def test_sigterm_lets_running_tasks_end_within_the_grace(holdfast: Command) -> None:
    started = holdfast.start("run", "work.py:steps", "n=1", "--json", "--grace", "20")
    started.until(lambda: "gated1" in holdfast.effects(), "the gated task began")
    started.signal(signal.SIGTERM)
    started.wait_for("stopping")
    holdfast.open_gate()
    ended = started.end()
    assert ended.code == 130, ended
    document = ended.json()
    assert document["interrupted"] is True
    assert document["status"] == "running"
    assert document["tasks"]["done"] == 2, "what ended within the grace is recorded"


def test_the_second_ctrl_c_ends_at_once(holdfast: Command) -> None:
    started = holdfast.start("run", "work.py:thread", "--grace", "1000")
    started.until(lambda: "stubborn" in holdfast.effects(), "the task began")
    started.signal(signal.SIGINT)
    started.wait_for("interrupt again")
    started.signal(signal.SIGINT)
    assert started.end().code == 130


def test_a_thread_that_does_not_end_does_not_hold_up_the_command(holdfast: Command) -> None:
    started = holdfast.start("run", "work.py:thread", "--grace", "0", fresh=True)
    started.until(lambda: "stubborn" in holdfast.effects(), "the task began")
    started.signal(signal.SIGINT)
    assert started.end().code == 130


def test_resume_goes_on_with_all_that_is_unfinished(holdfast: Command) -> None:
    for n in (1, 2):
        started = holdfast.start("run", "work.py:steps", f"n={n}", "--id", f"r{n}")
        started.until(lambda n=n: f"gated{n}" in holdfast.effects(), "the gated task began")
        started.signal(signal.SIGKILL)
        started.end()
    holdfast.open_gate()
    document = holdfast("resume", "work.py:steps", "--json").json()
    assert {each["run"]: each["status"] for each in document["runs"]} == {"r1": "completed", "r2": "completed"}
    nothing = holdfast("resume", "work.py")
    assert nothing.code == 0, nothing
    assert "no unfinished run of steps, thread" in nothing.out


def test_changed_code_suspends_the_run_and_the_old_code_resumes_it(holdfast: Command) -> None:
    started = holdfast.start("run", "work.py:steps", "n=1", "--id", "s1")
    started.until(lambda: "gated1" in holdfast.effects(), "the gated task began")
    started.signal(signal.SIGKILL)
    started.end()
    holdfast.open_gate()
    file = holdfast.folder / "work.py"
    good = file.read_text()
    file.write_text(good.replace("values.append(await gated(n))", "values.append(await step(n))"))
    ended = holdfast("run", "work.py:steps", "n=1", "--id", "s1")
    assert ended.code == 4, ended
    assert re.search(r"history has +the code now asks for", ended.out)
    assert re.search(r"gated\(1\).*step\(1\)", ended.out)
    assert "holdfast resume work.py:steps s1" in ended.out
    again = holdfast("resume", "work.py", "s1")
    assert again.code == 4, again
    document = holdfast.inside("show", "s1", "--json").json()
    assert document["status"] == "suspended"
    assert document["diagnosis"]["differences"]
    file.write_text(good)
    resumed = holdfast("run", "work.py:steps", "n=1")
    assert resumed.code == 0, resumed
    assert "1 of 3 tasks were already done, not run again" in resumed.out


def test_a_terminal_shows_frames_and_is_left_as_it_was(holdfast: Command) -> None:
    main, side = pty.openpty()
    started = holdfast.start("run", "work.py:steps", "n=2", "--grace", "0.1", fresh=True, stdout=side, stderr=side)
    os.close(side)
    seen = bytearray()
    reader = threading.Thread(target=collect, args=(main, seen))
    reader.start()
    started.until(lambda: "2 of 3 tasks done" in without_colours(seen.decode(errors="replace")), "a frame with figures")
    holdfast.open_gate()
    ended = started.end()
    reader.join(10)
    os.close(main)
    text = seen.decode()
    assert ended.code == 0, text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1, "the cursor is hidden once and shown again"
    plain = without_colours(text)
    assert "✔ steps completed in" in plain
    assert "1 running" in plain
    assert "\x1b[32m" in text or "\x1b[1;32m" in text, "colours"


def test_two_commands_on_one_run_see_the_same_end(holdfast: Command) -> None:
    first = holdfast.start("run", "work.py:steps", "n=1", "--id", "both", "--json")
    first.until(lambda: "gated1" in holdfast.effects(), "the gated task began")
    second = holdfast.start("run", "work.py:steps", "n=1", "--id", "both")
    second.wait_for("1 of 2 tasks are done already")
    holdfast.open_gate()
    ended: list[Any] = [first.end(), second.end()]
    assert [each.code for each in ended] == [0, 0], ended
    assert sorted(holdfast.effects()) == ["gated1", "step0", "step2"]


def test_a_module_is_a_target_too(holdfast: Command, tmp_path: Path) -> None:
    ended = holdfast("run", "work:quick", "n=5", "--json", "--store", f"sqlite:///{tmp_path}/other.db")
    assert ended.json()["result"] == 5
    assert (tmp_path / "other.db").exists()
    assert not (tmp_path / "holdfast.db").exists()
