"""The examples as modules, and a small made-up year of flights to run their pieces on."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

AIRLINES = """carrier,name
AA,"American, Inc."
UA,United
"""
AIRPORTS = """faa,name,lat,lon,alt,tz,dst,tzone
EWR,Newark,40.69,-74.17,18,-5,A,America/New_York
JFK,Kennedy,40.64,-73.78,13,-5,A,America/New_York
ORD,Chicago,41.98,-87.90,668,-6,A,America/Chicago
"""
PLANES = """tailnum,year,type,manufacturer,model,engines,seats,speed,engine
N1,2003,Fixed wing multi engine,BOEING,737-800,2,149,300,Turbo-fan
N2,1993,Fixed wing multi engine,AIRBUS,A320-200,2,182,300,Turbo-fan
"""
WEATHER = """origin,year,month,day,hour,temp,dewp,humid,wind_dir,wind_speed,wind_gust,precip,pressure,visib,time_hour
EWR,2013,1,1,6,39.0,26.0,59.4,270,10.4,20.0,0.0,1012.0,10.0,2013-01-01T11:00:00Z
JFK,2013,1,1,6,40.0,27.0,60.4,260,11.5,21.0,0.1,1011.0,9.0,2013-01-01T11:00:00Z
JFK,2013,2,1,6,41.0,28.0,61.4,250,12.6,22.0,0.2,1010.0,8.0,2013-02-01T11:00:00Z
"""
FLIGHT_COLUMNS = [
    *("year", "month", "day", "dep_time", "sched_dep_time", "dep_delay", "arr_time", "sched_arr_time", "arr_delay"),
    *("carrier", "flight", "tailnum", "origin", "dest", "air_time", "distance", "hour", "minute", "time_hour"),
]
FLIGHTS = f"""{",".join(FLIGHT_COLUMNS)}
2013,1,1,610,600,10,745,730,15,UA,100,N1,EWR,ORD,110,719,6,0,2013-01-01T11:00:00Z
2013,1,1,632,630,2,801,800,1,AA,200,N2,JFK,ORD,112,740,6,30,2013-01-01T11:00:00Z
2013,1,1,645,645,0,830,816,14,UA,101,N2,EWR,ORD,120,719,6,45,2013-01-01T11:00:00Z
2013,2,1,NA,615,NA,NA,745,NA,AA,201,N1,JFK,ORD,NA,740,6,15,2013-02-01T11:00:00Z
2013,2,1,700,630,30,845,800,45,AA,202,N2,JFK,ORD,115,740,6,30,2013-02-01T11:00:00Z
"""
CSV = {"airlines": AIRLINES, "airports": AIRPORTS, "planes": PLANES, "weather": WEATHER, "flights": FLIGHTS}

Extracted = dict[str, str]
"""The path of each table's Parquet file."""


def listed(folder: str | Path) -> list[str]:
    """The names in a folder, sorted."""
    return sorted(entry.name for entry in Path(folder).iterdir())


@pytest.fixture(scope="session")
def example() -> ModuleType:
    """`examples/flights.py`, loaded by its path as `holdfast run` does."""
    spec = importlib.util.spec_from_file_location("flights_example", EXAMPLES / "flights.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def extract_all(example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Extracted]:
    """Makes the made-up tables, with some of them changed, into Parquet files."""

    def extract_all(**changed: str) -> Extracted:
        source = tmp_path / "package"
        source.mkdir(exist_ok=True)
        for table, csv in (CSV | changed).items():
            (source / f"{table}.csv").write_text(csv, encoding="utf-8")
        monkeypatch.setattr(example, "package_data", lambda: source)
        return {table: example.extract.fn(table, str(tmp_path / "out")) for table in CSV}

    return extract_all
