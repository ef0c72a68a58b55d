"""A delay model that can be read: how likely is a flight to arrive late, by what is known before it leaves.

The model is additive. Each feature has a table of bins, each bin has a weight, and the weights of a flight's bins add
up to the log-odds of being late. It is trained by boosting, one feature after the other, with sums that always run in
the same order: the same flights give the same model, to the last bit. It is saved as JSON.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import duckdb
import msgspec
import numpy as np

from flights_lib.files import connect, rows, text

if TYPE_CHECKING:
    import pyarrow as pa

NUMBERS = [
    *("departure_minute", "arrival_minute", "distance", "plane_age", "seats", "departures_that_hour"),
    *("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"),
]
NAMES = ["weekday", "carrier", "origin", "dest", "origin_hour", "carrier_hour"]
BINS = 16  # of a number, with about as many flights in each
ROUNDS = 12
RATE = 0.3
PRIOR_FLIGHTS = 200.0  # how many flights' worth of doubt there is about the weight of each bin

Integers = np.ndarray[Any, np.dtype[np.intp]]
Floats = np.ndarray[Any, np.dtype[np.float64]]


class Feature(msgspec.Struct, frozen=True):
    """The bins of a column: 0 for unknown, then those between `edges`, or one for each of `labels`."""

    column: str
    edges: list[float]
    labels: list[str]
    weights: list[float]


class Model(msgspec.Struct, frozen=True):
    """The log-odds of an average flight and what each feature adds; for comparison, the late share of each hour."""

    intercept: float
    features: list[Feature]
    late_by_hour: list[float]


class Score(msgspec.Struct, frozen=True):
    """How a model did on a month it had not seen, beside a baseline: the usual late share of the hour of the day."""

    month: int
    flights: int
    late: int
    auc: float  # the chance that it ranks a late flight above a punctual one
    auc_baseline: float
    brier: float  # the mean squared error of the probability
    brier_baseline: float
    riskiest: int  # the tenth of the flights that it held most likely to be late ...
    riskiest_late: int  # ... and how many of these were
    bands: list[tuple[int, float, int]]  # by tenths of predicted probability: flights, their probabilities' sum, late
    swings: dict[str, float]  # how far each feature moves the log-odds, typically (standard deviation over the flights)


class Sample(msgspec.Struct, frozen=True):
    """Flights that arrived: each one's bin of each feature, whether it was late (0 or 1), and its hour."""

    bins: list[Integers]
    late: Integers
    hour: Integers


def flights_that_arrived(paths: list[str]) -> duckdb.DuckDBPyConnection:
    """A DuckDB with the table `arrived`: the flights of some months that are known to have arrived."""
    db = connect()
    rows(db, f"CREATE VIEW arrived AS FROM read_parquet([{', '.join(map(text, paths))}]) WHERE late IS NOT NULL")
    return db


def tables_that_arrived(tables: Sequence["pa.Table"]) -> duckdb.DuckDBPyConnection:
    """The same of months that are in memory, as Arrow tables."""
    db = connect()
    for number, table in enumerate(tables):
        db.register(f"month_{number}", table)
    every = " UNION ALL ".join(f"FROM month_{number}" for number in range(len(tables)))
    rows(db, f"CREATE VIEW arrived AS FROM ({every}) WHERE late IS NOT NULL")
    return db


def cut(db: duckdb.DuckDBPyConnection, column: str) -> Feature:
    """The bins of a column, all of them still without weight."""
    if column in NAMES:
        labels = [label for (label,) in rows(db, f"SELECT DISTINCT {column}::VARCHAR FROM arrived ORDER BY ALL")]
        return Feature(column, [], labels, [0.0] * (len(labels) + 1))
    quantiles = [part / BINS for part in range(1, BINS)]
    ((values,),) = rows(db, f"SELECT quantile_disc({column}::DOUBLE, {quantiles}) FROM arrived")
    edges = sorted(set(values or []))
    return Feature(column, edges, [], [0.0] * (len(edges) + 2))


def sample(db: duckdb.DuckDBPyConnection, features: list[Feature]) -> Sample:
    """The flights that arrived, as bins."""
    wanted = ["late::INTEGER AS late", "hour"]
    for feature in features:
        name, labels = feature.column, feature.labels
        value = f"coalesce(list_position({labels}, {name}::VARCHAR), 0)" if labels else f"{name}::DOUBLE"
        wanted.append(f"{value} AS the_{name}")
    order = "time_hour, carrier, flight, origin"
    columns = db.execute(f"SELECT {', '.join(wanted)} FROM arrived ORDER BY {order}").fetchnumpy()
    bins: list[Integers] = []
    for feature in features:
        values = np.ma.filled(columns[f"the_{feature.column}"], 0 if feature.labels else np.nan)
        if not feature.labels:
            place = np.searchsorted(feature.edges, values, side="right") + 1
            values = np.where(np.isnan(values), 0, place)
        bins.append(values.astype(np.intp))
    return Sample(bins, columns["late"].astype(np.intp), columns["hour"].astype(np.intp))


def chance(log_odds: Floats) -> Floats:
    """The probability that goes with log-odds."""
    return 1.0 / (1.0 + np.exp(-log_odds))


def fit(paths: list[str]) -> Model:
    """The model of the flights in these files."""
    with flights_that_arrived(paths) as db:
        return fitted(db)


def fit_tables(tables: Sequence["pa.Table"]) -> Model:
    """The model of the flights in these tables."""
    with tables_that_arrived(tables) as db:
        return fitted(db)


def fitted(db: duckdb.DuckDBPyConnection) -> Model:
    """The model of the flights that arrived."""
    features = [cut(db, column) for column in NUMBERS + NAMES]
    seen = sample(db, features)
    weights = [np.zeros(len(feature.weights)) for feature in features]
    average = float(seen.late.mean())
    intercept = float(np.log(average / (1 - average)))
    log_odds = np.full(len(seen.late), intercept)
    for _ in range(ROUNDS):
        for place, of_bin in zip(seen.bins, weights, strict=True):
            p = chance(log_odds)
            unexplained = np.bincount(place, seen.late - p, len(of_bin))
            certainty = np.bincount(place, p * (1 - p), len(of_bin))
            step = RATE * unexplained / (certainty + PRIOR_FLIGHTS)
            np.add(of_bin, step, out=of_bin)
            log_odds += step[place]
    flights, late = np.bincount(seen.hour, minlength=24), np.bincount(seen.hour, seen.late, 24)
    by_hour = np.where(flights > 0, late / np.maximum(flights, 1), average)
    trained = [
        msgspec.structs.replace(feature, weights=of_bin.tolist())
        for feature, of_bin in zip(features, weights, strict=True)
    ]
    return Model(intercept, trained, by_hour.tolist())


def area_under_curve(score: Floats, late: Integers) -> float:
    """The area under the ROC curve, by ranks; equals share their rank. 0.5 is guessing, and the answer of one class."""
    positive, negative = int(late.sum()), int(len(late) - late.sum())
    if not positive or not negative:
        return 0.5
    _, place, ties = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(ties) - (ties - 1) / 2)[place]
    return float((rank[late == 1].sum() - positive * (positive + 1) / 2) / (positive * negative))


def score(model: Model, month: int, path: str) -> Score:
    """The model's predictions for a month, held against what happened."""
    with flights_that_arrived([path]) as db:
        return scored(model, month, sample(db, model.features))


def score_table(model: Model, month: int, table: "pa.Table") -> Score:
    """The same for a month that is in memory."""
    with tables_that_arrived([table]) as db:
        return scored(model, month, sample(db, model.features))


def scored(model: Model, month: int, seen: Sample) -> Score:
    """The model's predictions for flights of one month."""
    late = seen.late
    moves = [np.asarray(f.weights)[place] for f, place in zip(model.features, seen.bins, strict=True)]
    p = chance(model.intercept + sum(moves, np.zeros(len(late))))
    baseline = np.asarray(model.late_by_hour)[seen.hour]
    riskiest = np.argsort(-p, kind="stable")[: len(p) // 10]
    tenth = np.minimum((p * 10).astype(np.intp), 9)
    bands = [np.bincount(tenth, of, 10).tolist() for of in (np.ones(len(p)), p, late)]
    return Score(
        month=month,
        flights=len(late),
        late=int(late.sum()),
        auc=area_under_curve(p, late),
        auc_baseline=area_under_curve(baseline, late),
        brier=float(np.mean((p - late) ** 2)),
        brier_baseline=float(np.mean((baseline - late) ** 2)),
        riskiest=len(riskiest),
        riskiest_late=int(late[riskiest].sum()),
        bands=[(int(flights), total, int(were_late)) for flights, total, were_late in zip(*bands, strict=True)],
        swings={f.column: float(move.std()) for f, move in zip(model.features, moves, strict=True)},
    )
