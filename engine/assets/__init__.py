"""Data assets. So far: their partitions, sets of partition keys, and mappings between partitions.

It uses what anybody can import from `engine` and `eventstore`. Partitions are pure: no I/O, and no clock but `now`.
"""

from __future__ import annotations

from engine.assets.calendar_partitions import Daily, Monthly, Weekly
from engine.assets.dimensions import Dimension, EachDimension, default_mapping
from engine.assets.hours import Hourly
from engine.assets.key_sets import KeySet, ReadKeys
from engine.assets.mappings import AllPartitions, Custom, LastPartition, Mapping, SameKey, TimeWindow
from engine.assets.partitions import Dynamic, DynamicKeys, Partitions, Product, Static, Unpartitioned, Window

__all__ = [
    "AllPartitions",
    "Custom",
    "Daily",
    "Dimension",
    "Dynamic",
    "DynamicKeys",
    "EachDimension",
    "Hourly",
    "KeySet",
    "LastPartition",
    "Mapping",
    "Monthly",
    "Partitions",
    "Product",
    "ReadKeys",
    "SameKey",
    "Static",
    "TimeWindow",
    "Unpartitioned",
    "Weekly",
    "Window",
    "default_mapping",
]
