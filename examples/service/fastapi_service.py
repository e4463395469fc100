"""The same service with FastAPI: uvicorn fastapi_service:app (pip install fastapi uvicorn)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException

import headrace

engine = headrace.Engine(table="events", provider="web", id=["key"])


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Open in each worker process, close at its end."""
    with engine:
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/events")
def events(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Not async: FastAPI then calls it in a thread, and the engine takes the threads in turn."""
    try:
        report = engine.ingest(rows)
    except (headrace.InputError, headrace.ContractError) as error:
        raise HTTPException(400, str(error)) from error
    except headrace.HeadraceError as error:
        raise HTTPException(503, str(error)) from error
    return {"read": report.read, "inserted": report.inserted, "run": report.run_id}
