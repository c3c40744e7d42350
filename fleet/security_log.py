"""The log of security events, as SQL: what the types of the area `security` said, and the alerts of these types, each
with the local time and who was at home. Up to `security_kept` it stands in the table security_events; what is newer is
read from `readings`, by the same query that fills the table."""

from datetime import timedelta

from fleet.area import PRESENCE, words_of
from fleet.catalog import System
from fleet.panel_sql import literal, values
from fleet.spec import DeviceType

COLUMNS = "at, system, site, type, device_id, name, event, severity, title, local_time, at_home"
LONGEST_STALE = timedelta(days=1)
"""Somebody's presence is not known for longer, where a spec does not say for how long."""

# `{starts}` and `{ends}` are SQL expressions of timestamptz; what happened at `ends` is not in it.
HAPPENED = """\
SELECT happened.at, {system}::text AS system, happened.site, happened.type, happened.device_id, happened.name,
       happened.event, happened.severity, happened.title, happened.at AT TIME ZONE coalesce(s.time_zone, 'UTC'),
       {at_home}
  FROM (SELECT change.at, change.site, of.type, change.device_id, of.name,
               CASE WHEN change.is_on THEN of.began ELSE of.ended END AS event,
               NULL::text AS severity, NULL::text AS title
          FROM (VALUES {states}) AS of (type, name, began, ended)
         CROSS JOIN LATERAL state_changes(of.type, of.name, {starts}, {ends}) change
         UNION ALL
        SELECT event_time, site, type, device_id, rule, "to", severity, title
          FROM alert_transitions
         WHERE system = {system} AND type IN ({types}) AND event_time >= {starts} AND event_time < {ends}) happened
  LEFT JOIN sites s ON s.system = {system} AND s.site = happened.site"""

LOG = """\
SELECT {columns} FROM security_events
 WHERE system = {system} AND at >= {starts} AND at < least({ends}, {kept_to})
 UNION ALL
{newer}"""
KEPT_TO = "coalesce((SELECT kept_to FROM security_kept WHERE system = {system}), '-infinity')"


def types_of(system: System) -> list[DeviceType]:
    return [spec for spec in system.types if spec.area == "security"]


def happened(system: System, starts: str, ends: str) -> str:
    """The query of COLUMNS. `starts` and `ends`: SQL expressions. The system has types of this area."""
    states, presence = [], []
    for spec in types_of(system):
        for name, metric in spec.metrics.items():
            if metric.kind == "state":
                words = words_of(name, metric.title)
                states.append([literal(text) for text in (spec.type, name, words.began, words.ended)])
            if name == PRESENCE:
                stale = (spec.silent_after or LONGEST_STALE).total_seconds()
                arguments = f"{literal(spec.type)}, {literal(name)}, happened.site, happened.at"
                presence.append(f"saying_so({arguments}, INTERVAL '{stale:g} seconds')")
    return HAPPENED.format(
        system=literal(system.name),
        # A null is dropped by ||, so that one type that is not known hides no other.
        at_home=f"{' || '.join(presence) or 'NULL::text[]'} AS at_home",
        states=values(states),
        types=", ".join(literal(spec.type) for spec in types_of(system)),
        starts=starts,
        ends=ends,
    )


def log(system: System, starts: str, ends: str) -> str:
    """As `happened`, and what is older than the readings, in no order."""
    name = literal(system.name)
    kept_to = KEPT_TO.format(system=name)
    return LOG.format(
        columns=COLUMNS, system=name, starts=starts, ends=ends, kept_to=kept_to,
        newer=happened(system, f"greatest({starts}, {kept_to})", ends),
    )  # fmt: skip
