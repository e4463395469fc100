"""The tables about `headrace profile`: its predictions beside what happened, and what it costs."""

from __future__ import annotations

from statistics import median

from tables import Content, markdown

__all__ = ["PROFILE_TABLES", "overhead", "predictions", "tried", "verify"]

REGRET = 1.1  # advice is right if the way that it names takes at most so many times what the other takes


def predictions(content: Content) -> str:
    """What the profile expected beside what the loads took, the errors, and whether the advice was right."""
    runs = {(run["case"], run["way"], run["round"]): run for run in content["runs"]}
    rows, errors, right = [], [], []
    for case, way, number in runs:
        ways = [runs.get((case, one, number)) for one in ("profile", "sequential", "parallel")]
        if way != "profile" or None in ways:
            continue
        told, alone, together = (one or {} for one in ways)
        took = (alone["report_seconds"], together["report_seconds"])
        expected = (told["sequential_seconds"][1], told["parallel_seconds"][1])
        off = [guess / real - 1 for guess, real in zip(expected, took, strict=True)]
        errors += map(abs, off)
        advised, other = (took[1], took[0]) if told["parallel"] else took
        right.append(advised <= other * REGRET)
        low, middle, high = told["speedup"]
        rows.append(
            (
                case,
                f"{expected[0]:.2f}",
                f"{took[0]:.2f} ({off[0]:+.0%})",
                together["workers"],
                f"{expected[1]:.2f}",
                f"{took[1]:.2f} ({off[1]:+.0%})",
                f"{middle:.2f} ({low:.2f}-{high:.2f})",
                f"{took[0] / took[1]:.2f}",
                "parallel" if told["parallel"] else "sequential",
                "yes" if right[-1] else "**no**",
            )
        )
    head = ("situation", "sequential: expected, s", "took, s", "workers", "parallel: expected, s", "took, s")
    table = markdown((*head, "speed-up: expected", "was", "advice", "right"), rows)
    summary = (
        f"Median error {median(errors):.0%}, largest {max(errors):.0%}; advice right in {sum(right)} of {len(right)}."
    )
    return f"{table}\n\n{summary}"


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
        rows.append((database, f"{events:,}", len(rounds), f"{plain:.2f}", *told))
    head = ("database", "events", "rounds", "a load, s", "the stage clock", "on cores", "profiling", "on cores")
    return markdown(head, rows)


def tried(content: Content) -> str:
    """The advice for each load, what was expected, and what then happened; the pictures beside the page they are on."""
    rows, texts = [], []
    for run in content["runs"]:
        took = (run["sequential_took"], run["parallel_took"])
        expected = (run["sequential_expected"][1], run["parallel_expected"][1])
        low, middle, high = run["speedup"]
        advised, other = (took[1], took[0]) if run["parallel"] else took
        rows.append(
            (
                run["case"],
                f"{run['predicted_rows']:,}",
                *(f"{guess:.2f} → {real:.2f}" for guess, real in zip(expected, took, strict=True)),
                f"{middle:.2f} ({low:.2f}-{high:.2f}) → {took[0] / took[1]:.2f}",
                "yes" if advised <= other * REGRET else "**no**",
                f"{run['others']:.1f}",
            )
        )
        texts.append(f"**{run['case']}** (`{run['options']}`): {run['advice']}.")
        if run.get("picture"):
            texts.append(f"![The page about {run['case']}](pictures/{run['picture']})")
    head = ("load", "rows", "sequential, s", "parallel, s", "speed-up", "advice right", "cores that others used")
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
        )
        for run in content["runs"]
    ]
    return markdown(("rows", "table", "seconds", "on cores", "peak memory"), rows)


PROFILE_TABLES = {"predictions": predictions, "overhead": overhead, "tried": tried, "verify": verify}
