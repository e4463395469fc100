"""The tables about `headrace profile`: its predictions beside what happened, and what it costs."""

from __future__ import annotations

from statistics import median

from bench.write.tables import Content, markdown, taken

__all__ = ["PROFILE_TABLES", "overhead", "predictions", "tried", "verify"]

REGRET = 1.1  # advice is wrong if the way that it names takes more than so many times what the other takes


def predictions(content: Content) -> str:
    """What the profile expected beside what the loads took, the errors, and whether advice and ranges held."""
    runs = {(run["case"], run["way"], run["round"]): run for run in content["runs"]}
    rows, errors, judged, held = [], [], [], []
    for case, way, number in runs:
        ways = [runs.get((case, one, number)) for one in ("profile", "sequential", "parallel")]
        if way != "profile" or None in ways:
            continue
        told, alone, together = (one or {} for one in ways)
        took = (alone["report_seconds"], together["report_seconds"])
        expected = (told["sequential_seconds"][1], told["parallel_seconds"][1])
        off = [guess / real - 1 for guess, real in zip(expected, took, strict=True)]
        errors += map(abs, off)
        judged.append(_judged(took, parallel=told["parallel"]))
        low, middle, high = told["speedup"]
        held.append(low <= took[0] / took[1] <= high)
        rows.append(
            (
                case,
                f"{expected[0]:.2f}",
                f"{took[0]:.2f} ({off[0]:+.0%})",
                together["workers"],
                f"{expected[1]:.2f}",
                f"{took[1]:.2f} ({off[1]:+.0%})",
                f"{middle:.2f} ({low:.2f}-{high:.2f})",
                f"{took[0] / took[1]:.2f}" + ("" if held[-1] else " (outside)"),
                "parallel" if told["parallel"] else "sequential",
                _WORDS[judged[-1]],
                taken(told),
            )
        )
    head = ("situation", "sequential: expected, s", "took, s", "workers", "parallel: expected, s", "took, s")
    table = markdown((*head, "speed-up: expected", "was", "advice", "right", "date, commit"), rows)
    decidable = [one for one in judged if one is not None]
    summary = (
        f"Median error {median(errors):.0%}, largest {max(errors):.0%}. Of {len(judged)} situations {len(decidable)} "
        f"are decidable: one way takes more than {REGRET} times what the other takes. There the advice was right in "
        f"{sum(decidable)}. The range of the speed-up held in {sum(held)} of {len(held)}."
    )
    return f"{table}\n\n{summary}"


_WORDS = {True: "yes", False: "**no**", None: "either way"}


def _judged(took: tuple[float, float], *, parallel: bool) -> bool | None:
    """Whether advice was right; ``None`` where no advice could be wrong. `took`: seconds sequentially, in parallel."""
    if max(took) <= min(took) * REGRET:
        return None
    return (took[1] < took[0]) is parallel


def overhead(content: Content) -> str:
    """What the clock costs beside no clock, and profiling beside a load as it is: medians of the rounds' ratios."""
    rows = []
    for database, events in dict.fromkeys((run["database"], run["rows"]) for run in content["runs"]):
        here = [run for run in content["runs"] if (run["database"], run["rows"]) == (database, events)]
        seconds, cpu = (
            {(run["way"], run["round"]): run[figure] for run in here} for figure in ("seconds", "cpu_seconds")
        )
        rounds = sorted({run["round"] for run in here})
        told = [
            f"{median(figures[way, one] / figures[beside, one] for one in rounds) - 1:+.1%}"
            for way, beside in (("clocked", "blind"), ("profiled", "clocked"))
            for figures in (seconds, cpu)
        ]
        plain = median(seconds["clocked", one] for one in rounds)
        rows.append((database, f"{events:,}", len(rounds), f"{plain:.2f}", *told, taken(*here)))
    head = ("database", "events", "rounds", "a load, s", "the stage clock", "on cores", "profiling", "on cores")
    head = (*head, "date, commit")
    return markdown(head, rows)


def tried(content: Content) -> str:
    """The advice for each load, what was expected, and what then happened; the pictures beside the page they are on."""
    rows, texts = [], []
    for run in content["runs"]:
        took = (run["sequential_took"], run["parallel_took"])
        expected = (run["sequential_expected"][1], run["parallel_expected"][1])
        low, middle, high = run["speedup"]
        right = _judged(took, parallel=run["parallel"])
        rows.append(
            (
                run["case"],
                f"{run['predicted_rows']:,}",
                *(f"{guess:.2f} → {real:.2f}" for guess, real in zip(expected, took, strict=True)),
                f"{middle:.2f} ({low:.2f}-{high:.2f}) → {took[0] / took[1]:.2f}",
                _WORDS[right],
                f"{run['others']:.1f}",
                taken(run),
            )
        )
        texts.append(f"**{run['case']}** (`{run['options']}`): {run['advice']}.")
        if run.get("picture"):
            texts.append(f"![The page about {run['case']}](pictures/{run['picture']})")
    head = (
        "load",
        "rows",
        "sequential, s",
        "parallel, s",
        "speed-up",
        "advice right",
        "cores that others used",
        "date, commit",
    )
    return "\n\n".join([markdown(head, rows), *texts])


def verify(content: Content) -> str:
    """Seconds and peak of the whole process, for the table as it was loaded and with three events deleted."""
    rows = [
        (
            f"{run['rows']:,}",
            run["table"],
            f"{run['seconds']:.1f}",
            f"{run['cpu_seconds']:.1f}",
            f"{run['peak_bytes'] >> 20} MiB",
            taken(run),
        )
        for run in content["runs"]
    ]
    return markdown(("rows", "table", "seconds", "on cores", "peak memory", "date, commit"), rows)


PROFILE_TABLES = {"predictions": predictions, "overhead": overhead, "tried": tried, "verify": verify}
