"""A report as Markdown."""

from typing import TYPE_CHECKING

from resnet_jax.reproduce.paper import METRICS

if TYPE_CHECKING:
    from resnet_jax.reproduce.report import Report, ReportRow, Value


def markdown(report: "Report") -> str:
    """Returns the report as Markdown: a table, what follows from it, and how it was made."""
    rows, trained = report["rows"], report["kind"] != "sizes"
    values = [value for row in rows for value in row["values"].values()]
    published = [
        metric
        for metric in rows[0]["values"]
        if any(row["values"][metric]["paper"] is not None for row in rows)
    ]
    head = ["network"]
    for metric in rows[0]["values"]:
        columns = (", paper", ", ours", ", difference") if metric in published else ("",)
        head += [METRICS[metric] + column for column in columns]
    head += ["seeds", "steps"] if trained else []
    lines = [head, ["---", *["--:"] * (len(head) - 1)]]
    lines += [_cells(row, published, trained) for row in rows]
    intervals = any(value["interval"] is not None for value in values)
    facts = {
        "data": report["data"],
        "test": report["protocol"].replace("_", " ") if trained else "",
        "made by": report["version"],
        "on": report["hardware"],
        "time of the command": f"{report['seconds']:,.0f} s",
        "note": report["note"],
    }
    parts = [
        f"# {report['heading']}",
        f"![{report['heading']}]({report['name']}.png)",
        "\n".join(f"| {' | '.join(cells)} |" for cells in lines),
        "± is the 95% interval of the mean over seeds, by Student's t." if intervals else "",
        "\n".join(f"- {sentence}" for sentence in report["conclusions"]),
        "\n".join(f"- {name}: {fact}" for name, fact in facts.items() if fact),
        f"    {report['command']}",
        f"```\n{report['text']}\n```" if report["text"] else "",
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _cells(row: "ReportRow", published: list[str], trained: bool) -> list[str]:
    cells = [row["label"]]
    for metric, value in row["values"].items():
        if metric in published:
            paper, difference = value["paper"], value["difference"]
            cells.append("" if paper is None else f"{paper:g}")
            cells.append(_ours(value))
            cells.append("" if difference is None else f"{difference:+.2f}")
        else:
            cells.append(_ours(value))
    if trained:
        cells.append(", ".join(map(str, row["seeds"])))
        cells.append(", ".join(f"{steps:,}" for steps in sorted(set(row["steps"]))))
    return cells


def _ours(value: "Value") -> str:
    if value["mean"] is None:
        return "not run"
    interval = value["interval"]
    return f"{value['mean']:.2f}" + ("" if interval is None else f" ± {interval:.2f}")
