"""Deliberate bugs in the Lua, one replacement each; the random schedules must find every one of them.

Left out, for they change nothing that anybody could notice: guards behind guards (the feed asks for a
job's state although only running jobs are in the fair feed; `begin` looks at the done bit although no
token of a done task exists), and the order in which equal work is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Mutant(NamedTuple):
    """One bug: in which script (`_common` = in all), and what it does to the text."""

    name: str
    script: str
    before: str
    after: str

    def applied_to(self, sources: Mapping[str, str]) -> dict[str, str]:
        """Return the scripts with the bug in them; raises ValueError if the line is not there any more."""
        chosen = list(sources) if self.script == "_common" else [self.script]
        if any(sources[name].count(self.before) != 1 for name in chosen):
            raise ValueError(f"{self.name}: {self.script}.lua does not have exactly one {self.before!r}")
        return {
            name: text.replace(self.before, self.after) if name in chosen else text
            for name, text in sources.items()
        }


MUTANTS = (
    Mutant("the epoch is not renewed", "_common", "(epoch + 1)", "(epoch + 0)"),
    Mutant(
        "a stale report of success counts",
        "complete",
        "== 0 then\n  local job, task = split(token)",
        "== 2 then\n  local job, task = split(token)",
    ),
    Mutant("a stale report of failure counts", "fail", "== 0 then return 0 end", "== 2 then return 0 end"),
    Mutant("anybody releases anything", "release", "ARGV[i]) == 1 then", "ARGV[i]) >= 0 then"),
    Mutant(
        "lists of the dead are not swept",
        "tick",
        "budget = budget - sweep(dead[i], budget, now, max_losses)",
        "budget = budget - 0",
    ),
    Mutant("a chunk is taken twice", "submit", "~= base or", "< base or"),
    Mutant("pause leaves the window as it is", "control", "wanted)\n  recall()", "wanted)"),
    Mutant("recall loses other jobs' tokens", "_common", "keep[#keep + 1] = token", "keep[#keep + 1] = nil"),
    Mutant("recall does not count", "control", "move(job, 'out', 'pending', #back)", ""),
    Mutant("a split file is sealed one part early", "complete", "waiting, -1) <= 0", "waiting, -1) <= 1"),
    Mutant(
        "a done task still counts as out",
        "complete",
        "move(job, 'out', 'done')",
        "add(jobkey(job), 'done', 1)",
    ),
    Mutant(
        "a paused job's task comes back into the window",
        "_common",
        "if runs then",
        "if true then",
    ),
    Mutant("the housekeeping does not feed", "tick", "feed()\nreturn batch", "return batch"),
    Mutant(
        "a parked retry is opened and stays parked",
        "tick",
        "redis.call('ZREM', key('parked:' .. host), token)",
        "",
    ),
    Mutant(
        "a parked retry of a paused job is handed out",
        "home",
        "'state') == 'running' then",
        "'state') ~= 'done' then",
    ),
    Mutant(
        "a retried task starts at epoch 0",
        "retry",
        "renew(job .. '.' .. task .. '.' .. (epoch or 0))",
        "job .. '.' .. task .. '.0'",
    ),
    Mutant("a job ends while retries are due", "_common", "about[4] + about[5] > 0", "about[4] > 0"),
    Mutant(
        "a job waits for held tasks for ever",
        "_common",
        "about[4] + about[5] > 0",
        "about[4] + about[5] + about[6] > 0",
    ),
    Mutant(
        "a cancelled job never ends",
        "_common",
        "if about[1] == 'cancelled' then return",
        "if about[1] == '' then return",
    ),
    Mutant("losses use up tries", "_common", "task .. '!', 1)", "task, 1)"),
    Mutant("one loss more than allowed", "_common", "losses < max_losses", "losses <= max_losses"),
    Mutant("one try more than allowed", "fail", "tries < tonumber", "tries <= tonumber"),
    Mutant("each stage of the housekeeping takes a whole batch", "tick", "budget = budget - #tokens", ""),
    Mutant("a retry takes more than a batch", "retry", "math.min(#page[2] / 2, batch)", "#page[2] / 2"),
    Mutant("a name is taken over with its tasks", "register", "if lease < now then", "if lease < 0 then"),
    Mutant("two processes share a name", "register", "if lease >= now and holder ~= incarnation", "if false"),
    Mutant("forget leaves a key", "_common", "'where', 'hosts',", "'where',"),
    Mutant(
        "a report brings a forgotten job back",
        "_common",
        "if job and not total then return nil end",
        "if job and not total then return job, task end",
    ),
    Mutant("what is revived still expires", "_common", "redis.call('PERSIST', jobkey(job, part))", ""),
    Mutant("the same job is made twice", "create", "if existing then\n", "if existing == '' then\n"),
    Mutant("two repo types share a folder", "create", "other ~= repo_type", "other == repo_type"),
    Mutant(
        "the host is written one byte too early", "complete", "task * 2, string.char", "task, string.char"
    ),
    Mutant("the dead get work", "begin", "or not redis.call('ZSCORE', key('workers'), worker)", ""),
    Mutant("the dead may beat", "beat", "worker) then return false end", "worker) then worker = ARGV[2] end"),
)
