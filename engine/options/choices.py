"""The values of options about a load and about a command. Nothing heavy is imported here: ``--help`` lists them."""

from __future__ import annotations

from typing import Literal

__all__ = ["LogFormat", "LogLevel", "MissingId", "Mode", "Output", "ProgressStyle", "StrategyName"]

Mode = Literal["sequential", "parallel"]
StrategyName = Literal["partitioned", "upsert", "locked"]
MissingId = Literal["reject", "keep-whole-row"]
Output = Literal["text", "json"]
ProgressStyle = Literal["auto", "plain", "json", "none"]
LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]
