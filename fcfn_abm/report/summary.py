"""The summary of a record, as aligned text, and the tables it shares with the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from rich.text import Text

from fcfn_abm.errors import join_lines
from fcfn_abm.records import Record
from fcfn_abm.report.blocks import AVERAGED, Table
from fcfn_abm.report.marks import heading, join, mark_verdict, wrap
from fcfn_abm.report.theme import training_label

ZCDP_NOTE = (
    "Nodes sell zCDP's rho in this scenario: the market's epsilon, total epsilon S and mean "
    "epsilon\nare amounts of rho."
)
_SHOWN = 12  # nodes listed by name
_ROUNDING = 1e-9  # share of the largest value with the same unit, below which a value is zero


def summary(record: Record) -> Text:
    """Summarise a run: verdict, closed form, exits, privacy and accuracy."""
    parts: list[str | Text] = [
        _heading(record),
        equilibrium_table(record.run["equilibrium"], record.run["market"]).to_rich_text(),
        _who_left(record),
    ]
    if record.scenario.privacy.currency == "zcdp":
        parts.insert(1, ZCDP_NOTE)
    if groups := groups_table(record):
        parts.insert(2, groups.to_rich_text())
    if beliefs := describe_beliefs(record.run):
        parts.insert(2, wrap(beliefs))
    if "training" in record.run:
        spent = privacy_table(record)
        parts.append(spent.to_rich_text() if spent else "No node trains: there is no trade.")
        parts.append(trainings_table(record).to_rich_text())
        if riders := free_riders_table(record):
            parts.append(riders.to_rich_text())
    return join("\n\n", parts)


def _heading(record: Record) -> Text:
    verdict, market = record.run["verdict"], record.run["market"]
    title = join_lines(record.scenario.title) or "Privacy market"
    kind, subject = verdict["kind"], f"{len(record.nodes)} nodes: "
    ended = f"{subject}{kind} after {verdict['rounds']} rounds; "
    solved = "equilibrium" if "solution" in record.run["equilibrium"] else "closed form"
    measured = (
        f"Largest gain from deviating alone: {market['exploitability']:.1e} of B. "
        f"Distance to the {solved}: {market['distance']:.1e} of the largest epsilon."
    )
    lines: list[str | Text] = [
        heading(f"{title} (seed {record.scenario.seed})"),
        "",
        mark_verdict(wrap(ended + verdict["reason"]), kind, len(subject)),
        wrap(measured),
    ]
    return join("\n", lines)


def equilibrium_table(form: Mapping[str, Any], market: Mapping[str, Any] | None = None) -> Table:
    """Return the closed form next to the market's result.

    Parameters
    ----------
    form : mapping
        ``equilibrium`` of a record's ``run.json``.
    market : mapping, optional
        ``market`` of the same file; without it only the closed form is shown.
    """
    reference = "closed form" if form["threshold"] else "as priced"
    if "solution" in form:
        reference = "equilibrium"
    contest = form["mechanism"] == "stackelberg"
    pays = "payment cap B" if contest else "payment"
    over = AVERAGED[form["average_over"]]
    quantities = [
        (pays, "payment", "currency"),
        ("active nodes", "n_active", ""),
        ("total epsilon S", "total_epsilon", ""),
        (f"mean epsilon over {over}", "mean_epsilon", ""),
        ("utility of all nodes", "node_utility", "currency"),
        ("utility of the server", "server_utility", "currency"),
    ]
    rows = []
    for label, key, unit in quantities:
        row = [label, _number(form[key])]
        if market:
            row.insert(1, _number(market[key]))
            scale = max(abs(of[k]) for _, k, u in quantities if u == unit for of in (market, form))
            row.append(_relative_difference(market[key], form[key], scale))
        rows.append([*row, unit])
    head = ["", reference, ""]
    if market:
        head = ["", "market", reference, "relative difference", ""]
    return Table(head, rows, note=_threshold_note(form, contest=contest))


def describe_bounds(bounds: Mapping[str, float]) -> list[str]:
    """Describe the bounds that the paper derives for its contest, one line each."""
    if not bounds:
        return []
    low, high = bounds["epsilon_ceiling_low"], bounds["epsilon_ceiling_high"]
    span = f"{low:.6g}" if low == high else f"{low:.6g} to {high:.6g}, from the highest cost down"
    lines = [
        f"No node with rho >= {bounds['privacy_cost_ceiling']:.6g} takes part at any cap that pays "
        "off for the server (Zhou et al. 2023, eq. 47)."
    ]
    return lines if high == 0 else [*lines, f"A node's epsilon stays below B/rho (eq. 52): {span}."]


def describe_solution(form: Mapping[str, Any]) -> str:
    """Describe how a contest with other terms than the paper's was solved; empty for other games.

    Parameters
    ----------
    form : mapping
        ``equilibrium`` of a record's ``run.json``.
    """
    solution = form.get("solution")
    if solution is None:
        return ""
    known = {
        True: "It is the only equilibrium.",
        False: f"It is not the only equilibrium: {solution['n_others']} others were found.",
        None: "It is not known whether there are other equilibria.",
    }
    said = (
        f"Solved by: {solution['found_by']}; a node could gain {solution['regret']:.1g} of B. "
        f"{known[solution['unique']]}"
    )
    if form["status"] == "no-solution":
        said = str(form["reason"])
    return f"{said} {solution['note']}".strip()


def describe_beliefs(run: Mapping[str, Any]) -> str:
    """Describe what nodes expect that know only the cost distribution; empty for other rules."""
    known = run.get("bayes_nash")
    if known is None:
        return ""
    return (
        f"The nodes play the Bayes-Nash equilibrium of {known['n_types']} types. The expected S "
        f"over the cost distribution is {known['expected_total_epsilon']:.6g}; with the drawn "
        f"costs S is {run['market']['total_epsilon']:.6g}."
    )


def _threshold_note(form: Mapping[str, Any], *, contest: bool) -> str:
    if "solution" in form and (form["status"] != "no-trade" or not contest):
        return wrap(describe_solution(form))
    if "solution" in form:
        return "No payment cap in the search range pays off for the server: there is no trade."
    if form["status"] != "solved" and contest:
        return (
            "No payment cap pays off for the server: B* = 0, and there is no trade (Zhou et al. "
            "2023, eq. 45)."
        )
    if form["status"] != "solved":
        return f"{form['status']}: {form['reason']}"
    if form["threshold"]:
        return (
            f"A node stays out if rho >= tau/(n-1) = {form['threshold']:.6g} "
            f"(tau = {form['tau']:.6g})."
        )
    return ""


def _who_left(record: Record) -> str:
    nodes, form = record.nodes, record.run["equilibrium"]
    out = nodes[~nodes["active"]].sort_values("rho", ascending=False)
    if out.empty:
        return "All nodes take part."
    n_gone = out["exit_round"].notna().sum()
    gone = "all of them" if n_gone == len(out) else f"{n_gone} of them"
    text = f"{len(out)} of {len(nodes)} nodes are inactive at the end; {gone} exited.\n"
    if form["status"] != "solved":
        return text + "There is no trade."
    if not form["threshold"]:
        return text.rstrip()
    near = out.tail(_SHOWN // 2)
    far = out.head(_SHOWN - len(near)) if len(out) > _SHOWN else out.iloc[: -len(near)]
    rows = [_leaver(node, form["threshold"]) for node in far.itertuples()]
    if len(out) > _SHOWN:
        rows.append([f"({len(out) - _SHOWN} more in nodes.parquet)", "", "", ""])
    rows += [_leaver(node, form["threshold"]) for node in near.itertuples()]
    return text + Table(["", "rho", "rho / (tau/(n-1))", "left in round"], rows).text()


def _leaver(node: Any, threshold: float) -> list[str]:
    left = "-" if pd.isna(node.exit_round) else str(node.exit_round)
    return [
        name_node(node),
        f"{node.rho:.4g}",
        f"{node.rho / threshold:.3f}",
        left,
    ]


def name_node(node: Any) -> str:
    """Return the label of a node: its name, or its number."""
    name = getattr(node, "name", None)
    return f"node {node.node}" if name is None or pd.isna(name) else str(name)


def privacy_table(record: Record) -> Table | None:
    """Return the epsilon spent by the nodes that train, or None if no node trains."""
    settings, training = record.scenario.privacy, record.scenario.training
    nodes = record.nodes[record.nodes["epsilon_total"] > 0]  # some may have exited since
    rounds = training.rounds if training else 0
    if nodes.empty:
        return None
    central, total = settings.view == "central", settings.horizon == "training"
    view = ", from the server's view" if central else ""
    observer = "for an observer of a node's messages"
    sold = []
    if central or total:
        seen = "from the server's view" if central else observer
        label = f"epsilon, {'total' if total else 'one round'}, sold, {seen}"
        sold = [(label, "epsilon_sold")]
    in_zcdp = settings.currency == "zcdp"
    of = "total" if total else "one round"
    amounts = [(f"rho of zCDP, {of}, sold", "zcdp_sold"), ("rho of zCDP, total", "zcdp_total")]
    rows = [
        [label, *(_number(nodes[name].agg(how)) for how in ("min", "median", "max"))]
        for label, name in (
            *(amounts if in_zcdp else ()),
            (f"epsilon, one round, {observer}", "epsilon_per_round"),
            *sold,
            (f"epsilon, total of {rounds} rounds, {observer}", "epsilon_total"),
            ("epsilon, total, from the server's view", "epsilon_central"),
            ("noise multiplier", "noise_multiplier"),
        )
        if name in nodes  # records of an earlier version have no central view
    ]
    facts = record.run["training"]
    notes = [facts.get(name) for name in ("central_note", "privacy_note", "noise_note")]
    title = (
        f"Privacy of the nodes that train (delta = {settings.delta:g}, unit: {settings.unit}, "
        f"epsilon is {'the total' if total else 'spent each round'}"
        f"{view}, "
        f"{settings.calibration} calibration)"
    )
    if in_zcdp:
        title = (
            f"Privacy of the nodes that train (nodes sell zCDP's rho, {of}"
            f"{view}; unit: {settings.unit}; epsilon at "
            f"delta = {settings.delta:g})"
        )
    return Table(
        ["", "least", "median", "most"],
        rows,
        title,
        "\n".join(note for note in notes if note),
    )


def groups_table(record: Record) -> Table | None:
    """Return the results of each group of nodes with its closed form, or None without groups."""
    if "groups" not in record.run:
        return None
    rules = {
        g.name: g.learning or record.scenario.learning
        for g in record.scenario.population.groups or ()
    }
    rows = []
    for group in record.run["groups"]:
        n_nodes, total = group["n_nodes"], group["total_epsilon"]
        utility, expected = group["node_utility"], group["equilibrium_node_utility"]
        rows.append(
            [
                group["name"],
                rules[group["name"]].kind,
                f"{n_nodes:,}",
                f"{group['n_active']:,} ({group['equilibrium_n_active']:,})",
                f"{_number(total)} ({_number(group['equilibrium_total_epsilon'])})",
                _number(group["payment"]),
                f"{_number(utility)} ({_number(expected)})",
                _number(utility / n_nodes) if n_nodes else "-",
            ]
        )
    head = ["", "learning rule", "nodes", "active", "sum of epsilon", "paid", "utility", "per node"]
    return Table(head, rows, "Groups of nodes (outcome of the mechanism in parentheses)")


def trainings_table(record: Record) -> Table:
    """Return the results of each training."""
    privacy = record.scenario.privacy
    in_zcdp = privacy.currency == "zcdp"
    classical = privacy.calibration == "classical" or in_zcdp
    rows = [
        [
            training_label(arm["name"]),
            str(arm["n_nodes"]),
            _number(arm["mean_epsilon"]) if arm["private"] else "no noise",
            *([_number(arm["mean_true_epsilon"]) if arm["private"] else "-"] if classical else []),
            _number(arm["node_utility"]),
            str(arm["n_losing"]),
            _number(arm["server_utility"]),
            f"{arm['accuracy']:.1%}",
        ]
        for arm in record.run["training"]["arms"]
    ]
    head = [
        "",
        "nodes",
        "mean rho of zCDP" if in_zcdp else "mean epsilon",
        *(["true epsilon"] if classical else []),
        "utility of all nodes",
        "losing nodes",
        "server utility",
        "accuracy",
    ]
    why = record.run["training"].get("broke_down")
    note = f"Training is incomplete: {why}" if why else ""
    return Table(head, rows, f"Training on {record.run['training']['data']}", note)


def free_riders_table(record: Record) -> Table | None:
    """Return what misreporting gains at the market's epsilon, with and without the check."""
    arms = record.run["training"]["arms"]
    if not arms or "free_riders" not in arms[0]:
        return None
    groups, check = arms[0]["free_riders"], record.scenario.privacy.check
    people, label_lies, title = record.scenario.population, "", "Free riders"
    factors = {
        lies.factor
        for lies in (people.misreport, *(group.misreport for group in people.groups or ()))
        if lies
    }
    by = " or ".join(f"{factor:g}" for factor in sorted(factors))
    if by:
        label_lies = f"that spend epsilon / {by}"
    if groups.get("reports") == "cost":
        title = "False costs"
        label_lies = f"that report {by} times their cost" if by else ""
    columns = ["utility_if_all_were_honest", "utility_unchecked"] + ["utility"] * bool(check)
    rows = [
        [f"{group['n_nodes']} {label}", *(_number(group[name]) for name in columns), "currency"]
        for label, group in (
            (label_lies, groups["misreporting"]),
            ("truthful", groups["honest"]),
        )
        if group["n_nodes"]
    ]
    head = ["nodes", "all truthful", "without check"] + ["with check"] * bool(check)
    note = ""
    if check:
        note = (
            "The check (false-alarm probability per truthful node: "
            f"{check.false_alarm:g} at most) flagged\n"
            f"{_describe_flagged(groups['misreporting'], 'nodes that misreport')}, and "
            f"{_describe_flagged(groups['honest'], 'truthful ones')}."
        )
    return Table([*head, ""], rows, f"{title}: mean utility per node and round", note)


def _describe_flagged(group: Mapping[str, Any], whom: str) -> str:
    first, last = group["first_flagged"], group["last_flagged"]
    when = ""
    if group["n_flagged"]:
        when = f" (in round {first})" if first == last else f" (in rounds {first} to {last})"
    return f"{group['n_flagged']} of {group['n_nodes']} {whom}{when}"


def _number(value: float) -> str:
    return f"{value:d}" if isinstance(value, int) else f"{value:.6g}"


def _relative_difference(value: float, base: float, scale: float) -> str:
    """Format a relative difference; "-" if the base is zero up to rounding."""
    return f"{abs(value - base) / abs(base):.1e}" if abs(base) > _ROUNDING * scale else "-"
