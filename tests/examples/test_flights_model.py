"""The delay model: it finds what is in the data, says the same each time, and its scores are what they are called."""

import math

import msgspec
import numpy as np
import pytest


@pytest.fixture
def model(example):
    return example.model


@pytest.fixture
def made_up(example, model, tmp_path):
    """Flights whose lateness is made by a rule, as a Parquet file."""

    def made_up(
        late: str, flights: int = 4_000, name: str = "flights", carrier: str = "['AA', 'UA'][i % 2 + 1]"
    ) -> str:
        unknown = ", ".join(f"NULL::DOUBLE AS {column}" for column in model.NUMBERS if column != "temp")
        same = ", ".join(f"'x' AS {column}" for column in model.NAMES if column != "carrier")
        path = tmp_path / f"{name}.parquet"
        with example.connect() as db:
            source = f"SELECT i, (i * 37 % 100)::DOUBLE AS temp, {carrier} AS carrier FROM range({flights}) AS t (i)"
            example.save(
                db,
                f"""SELECT TIMESTAMP '2013-01-01' + INTERVAL 1 MINUTE * i AS time_hour, i AS flight, i % 24 AS hour,
                {late} AS late, temp, carrier, {unknown}, {same} FROM ({source})""",
                path,
            )
        return str(path)

    return made_up


RULE = "CASE WHEN i % 10 = 9 THEN NULL ELSE (carrier = 'AA' AND i % 3 <> 0) OR (temp > 80 AND i % 5 <> 0) END"


def feature(trained, column):
    return next(feature for feature in trained.features if feature.column == column)


def test_it_learns_what_makes_flights_late(model, made_up):
    trained = model.fit([made_up(RULE)])
    assert feature(trained, "carrier").labels == ["AA", "UA"]
    unknown, american, united = feature(trained, "carrier").weights
    assert unknown == 0
    assert american > 0.5 > -0.5 > united
    temperature = feature(trained, "temp")
    hot = [weight for edge, weight in zip(temperature.edges, temperature.weights[2:], strict=True) if edge > 82]
    mild = [weight for edge, weight in zip(temperature.edges, temperature.weights[2:], strict=True) if edge < 70]
    assert min(hot) > max(mild)
    assert np.allclose(feature(trained, "origin").weights, 0, atol=0.05)  # the same for all: it explains nothing


def test_the_same_flights_give_the_same_model_to_the_last_bit(model, made_up):
    path = made_up(RULE)
    first = msgspec.json.encode(model.fit([path]))
    assert msgspec.json.encode(model.fit([path])) == first
    assert msgspec.json.encode(msgspec.json.decode(first, type=model.Model)) == first


def test_cancelled_flights_are_no_evidence(model, made_up):
    assert model.fit([made_up(RULE)]) == model.fit([made_up(f"CASE WHEN i < 4000 THEN {RULE} END", 5_000)])


def test_the_score_is_what_it_is_called(model, made_up):
    """A model that knows only the airline, scored by hand."""
    log_odds = {"AA": math.log(3), "UA": -math.log(3)}  # chances of 0.75 and 0.25
    features = [model.Feature("carrier", [], ["AA", "UA"], [0.0, log_odds["AA"], log_odds["UA"]])]
    known = model.Model(0.0, features, [0.5] * 24)
    path = made_up("(carrier = 'AA' AND i % 8 <> 0) OR i % 8 = 1", 80)
    score = model.score(known, 3, path)
    american, united = [i for i in range(80) if i % 2 == 0], [i for i in range(80) if i % 2 == 1]
    late = [i for i in american if i % 8] + [i for i in united if i % 8 == 1]
    assert (score.month, score.flights, score.late) == (3, 80, len(late))
    assert score.brier == pytest.approx((30 * 0.25**2 + 10 * 0.75**2 + 10 * 0.75**2 + 30 * 0.25**2) / 80)
    assert score.brier_baseline == pytest.approx(0.25)
    # of the pairs of a late and a punctual flight: 30 x 30 in order, 10 x 10 the wrong way round, the others equal
    assert score.auc == pytest.approx((900 + 0.5 * (30 * 10 + 10 * 30)) / 1600)
    assert score.auc_baseline == 0.5
    assert (score.riskiest, score.riskiest_late) == (8, 6)  # the first eight of American, two of them punctual
    filled = {tenth: band for tenth, band in enumerate(score.bands) if band[0]}
    assert filled == {2: (40, pytest.approx(10), 10), 7: (40, pytest.approx(30), 30)}
    assert score.swings == {"carrier": pytest.approx(math.log(3))}


def test_what_it_has_never_seen_moves_nothing(model, made_up):
    trained = model.fit([made_up(RULE)])
    moved = model.score(trained, 1, made_up(RULE, name="new", carrier="'ZZ'"))
    assert moved.swings["carrier"] == 0


@pytest.mark.parametrize(
    ("score", "late", "area"),
    [
        ([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], 1.0),
        ([0.9, 0.8, 0.2, 0.1], [0, 0, 1, 1], 0.0),
        ([0.5, 0.5, 0.5, 0.5], [0, 1, 0, 1], 0.5),
        ([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1], 0.75),
        ([0.3, 0.3, 0.7], [0, 1, 1], 0.75),
        ([0.1, 0.9], [1, 1], 0.5),
        ([0.1, 0.9], [0, 0], 0.5),
    ],
)
def test_the_area_under_the_curve(model, score, late, area):
    assert model.area_under_curve(np.array(score), np.array(late)) == pytest.approx(area)


def test_the_area_under_the_curve_is_the_share_of_pairs_in_order(model):
    numbers = np.random.default_rng(5)
    score, late = np.round(numbers.random(200), 1), numbers.integers(0, 2, 200)
    pairs = [(a > b) + 0.5 * (a == b) for a in score[late == 1] for b in score[late == 0]]
    assert model.area_under_curve(score, late) == pytest.approx(np.mean(pairs))


def test_the_tasks_hand_on_the_model_as_a_json_file(example, made_up, tmp_path):
    months = [example.Month(1, made_up(RULE), 0)]
    out = str(tmp_path / "out")
    first, again = (example.train.fn(2, months, out) for _ in range(2))
    assert first == again == f"{out}/models/2013-02.json"
    score = example.evaluate.fn(first, example.Month(2, made_up(RULE, name="february"), 0))
    assert score.month == 2
    assert score.auc > 0.7
    assert msgspec.json.decode(msgspec.json.encode(score), type=type(score)) == score
