"""The report: one file that needs nothing else, the same bytes for the same facts, and every number from them."""

import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import pytest


@pytest.fixture
def report(example):
    from flights_lib import report

    return report


@pytest.fixture
def facts(example, report):
    group, score = report.Group, example.model.Score
    return report.Facts(
        by_month=[group([str(month)], 1_000, 10 * month, 900, 100 + 20 * month) for month in range(1, 13)],
        by_hour=[
            group([str(day), str(hour)], 500, 5, 400, hour * 10 + day) for day in range(1, 8) for hour in range(5, 24)
        ],
        by_airline=[group([name], 500, 5, 400, late) for name, late in [("Ann & Sons", 40), ("<b>Bold</b>", 120)]],
        scores=[
            score(
                month=month,
                flights=900,
                late=300,
                auc=0.7 + month / 1000,
                auc_baseline=0.6,
                brier=0.15,
                brier_baseline=0.2,
                riskiest=90,
                riskiest_late=45,
                bands=[(90, 9.0 * tenth + 4.5, 9 * tenth) for tenth in range(10)],
                swings={"temp": 0.25, "wind_speed": 0.125},
            )
            for month in (7, 8)
        ],
        findings=[
            example.Finding("flights", "dest", "is not in airports", 7, 336, 7, "islands", ["dest=SJU"]),
            example.Finding("flights", "month", "is missing", 0, 336),
        ],
    )


def svgs(page: str) -> list[ET.Element]:
    return [ET.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]


def words(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


def test_the_summary_adds_up(report, facts):
    summary = report.summed_up(facts)
    assert (summary.flights, summary.arrived, summary.cancelled) == (12_000, 10_800, 780)
    assert summary.late == sum(100 + 20 * month for month in range(1, 13))
    assert summary.late_share == round(summary.late / 10_800, 4)
    assert summary.worst_month == "December"
    assert (summary.checks, summary.warnings, summary.months_predicted) == (2, 1, 2)
    assert (summary.auc, summary.auc_baseline) == (0.7075, 0.6)
    assert (summary.brier, summary.brier_baseline) == (0.15, 0.2)
    assert summary.riskiest_tenth_late_share == 0.5


def test_months_weigh_by_their_flights(report, facts):
    big = msgspec.structs.replace(facts.scores[1], flights=2_700, auc=0.9)
    small = msgspec.structs.replace(facts.scores[0], flights=900, auc=0.5)
    assert report.summed_up(msgspec.structs.replace(facts, scores=[small, big])).auc == 0.8


def test_the_same_facts_give_the_same_bytes_wherever_they_are_written(example, facts, tmp_path):
    pages = [example.write_report.fn(facts, str(tmp_path / name)) for name in ("a", "b", "a")]
    first, second, again = (Path(page).read_bytes() for page in pages)
    assert first == second == again
    assert str(tmp_path).encode() not in first


def test_it_loads_nothing_and_runs_nothing(report, facts):
    page = report.html_report(facts)
    seen = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attributes):
            seen.append((tag, dict(attributes)))

    Reader().feed(page)
    assert {"script", "link", "img", "iframe", "object", "base"}.isdisjoint({tag for tag, _ in seen})
    assert not [
        name for _, attributes in seen for name in attributes if name in {"src", "href", "xlink:href", "srcset"}
    ]
    assert not [name for _, attributes in seen for name in attributes if name.startswith("on")]
    assert not re.search(r"https?:|@import|url\(|@font-face", page)


def test_it_holds_no_time_and_no_id(report, facts):
    text = words(report.html_report(facts).split("</style>")[1])
    assert not re.search(r"\b20\d\d-\d\d|\d:\d\d:\d\d|[0-9a-f]{8}-[0-9a-f]{4}", text)
    assert set(re.findall(r"\b(?:19|20)\d\d\b", text)) == {"2013"}


def test_its_pictures_are_well_formed_and_say_what_they_are(report, facts):
    pictures = svgs(report.html_report(facts))
    assert len(pictures) == 7
    assert all(picture.get("role") == "img" and picture.get("aria-label") for picture in pictures)
    assert len({picture.get("aria-label") for picture in pictures}) == 7


def test_nothing_is_drawn_outside_its_picture(report, facts):
    for picture in svgs(report.html_report(facts)):
        width, height = map(float, picture.get("viewBox").split()[2:])
        for rect in picture.iter("rect"):
            x, y, w, h = (float(rect.get(name)) for name in ("x", "y", "width", "height"))
            assert 0 <= x <= x + w <= width + 0.1
            assert 0 <= y <= y + h <= height + 0.1
            assert h >= 0


def test_a_column_is_as_high_as_its_number(report):
    (picture,) = svgs(report.columns("test", [("a", 0.1, 0.0), ("b", 0.2, 0.2), ("c", 0.0, 0.1)], "late", str))
    low, high, none = (float(rect.get("height")) for rect in picture.iter("rect"))
    assert high == pytest.approx(2 * low, abs=0.2)
    assert none == 0
    marks = [float(line.get("y1")) for line in picture.iter("line") if line.get("class") == "mark"]
    tops = [float(rect.get("y")) for rect in picture.iter("rect")]
    assert marks == pytest.approx([tops[2], tops[1], tops[0]])


def test_a_bar_is_as_long_as_its_number(report):
    (picture,) = svgs(report.bars("test", [("a", 0.4, "40%"), ("b", 0.1, "10%")], "cool"))
    long, short = (float(rect.get("width")) for rect in picture.iter("rect"))
    assert long == pytest.approx(4 * short, abs=0.2)


def test_the_numbers_are_those_of_the_facts(report, facts):
    text = words(report.html_report(facts))
    for expected in (
        "12,000",
        "6.5% were cancelled",
        "0.708",
        "50.0%",
        "December",
        "2 checks, 1 warnings",
        "Sun 23:00",
    ):
        assert expected in text
    assert "dest is not in airports 7 of 336 islands" in text
    assert "month is missing" not in text  # it is not
    better = msgspec.structs.replace(facts, by_month=[msgspec.structs.replace(m, late=90) for m in facts.by_month])
    assert "10.0% of those that arrived" in words(report.html_report(better))


def test_names_from_the_data_are_escaped(report, facts):
    page = report.html_report(facts)
    assert "<b>Bold</b>" not in page
    assert "&lt;b&gt;Bold&lt;/b&gt;" in page
    assert "Ann &amp; Sons was the most punctual" in page


def test_hours_with_few_flights_are_left_out(report, facts):
    few = [*facts.by_hour, report.Group(["1", "2"], 99, 0, 99, 99)]
    assert report.html_report(msgspec.structs.replace(facts, by_hour=few)) == report.html_report(facts)
