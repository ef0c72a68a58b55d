"""The checks on the real tables: what is written down about their warts is so, and nothing else is amiss."""

import msgspec
import pytest

DESTINATIONS_OUTSIDE_THE_LIST = 7_602
PLANES_NOT_IN_THE_REGISTRY = 50_094


@pytest.fixture(scope="module")
def tables(example, tmp_path_factory):
    out = str(tmp_path_factory.mktemp("real"))
    return {table: example.extract.fn(table, out) for table in example.TABLES}


@pytest.fixture(scope="module")
def findings(example, tables):
    found = [finding for table in tables for finding in example.check_table.fn(table, tables[table])]
    for name, table in example.TABLES.items():
        for rule in table.rules:
            if rule.parent:
                found += example.check_reference.fn(name, rule.columns, tables)
    return found


def test_each_wart_is_there_as_often_as_is_written_and_has_its_meaning(findings):
    assert {f"{f.table} {f.columns} {f.problem}": f.count for f in findings} == {
        f"{f.table} {f.columns} {f.problem}": f.known for f in findings
    }
    assert all(finding.meaning for finding in findings if finding.count)


def test_they_pass_with_warnings(example, findings):
    example.insist(findings)
    count = {(f.table, f.columns, f.problem): f.count for f in findings}
    assert count["flights", "dest", "is not in airports"] == DESTINATIONS_OUTSIDE_THE_LIST
    assert count["flights", "tailnum", "is not in planes"] == PLANES_NOT_IN_THE_REGISTRY


def test_one_wart_more_would_fail_the_run(example, findings):
    for i, finding in enumerate(findings):
        worse = [*findings[:i], msgspec.structs.replace(finding, count=finding.count + 1), *findings[i + 1 :]]
        with pytest.raises(example.DataQualityError, match="1 of "):
            example.insist(worse)


def test_a_month_keeps_its_flights_and_a_model_beats_the_baseline_on_it(example, tables, tmp_path):
    """Two months: enough to see the pieces work on real data."""
    january, february = (example.transform_month.fn(month, tables, str(tmp_path)) for month in (1, 2))
    assert (january.flights, february.flights) == (27_004, 24_951)
    score = example.evaluate.fn(example.train.fn(2, [january], str(tmp_path)), february)
    assert score.flights < february.flights  # the cancelled ones have no delay
    assert score.auc > score.auc_baseline > 0.5
    assert score.riskiest_late / score.riskiest > 1.5 * score.late / score.flights
