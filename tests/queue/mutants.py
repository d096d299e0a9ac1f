"""Deliberate bugs in the Lua, one replacement each; the random schedules must find every one of them.

Left out, for they change nothing that anybody could notice: guards behind guards (the feed asks for a
job's state although only running jobs are in the fair feed; `begin` looks at the done bit although no
token of a done task exists), and the order in which equal work is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Mutant(NamedTuple):
    """One bug: in which script (`_common`, `_lives` = in all that have it), and what it does to the text."""

    name: str
    script: str
    before: str
    after: str
    #: The history that found it when this was last measured; it is tried first, and only speed depends on it.
    seed: int = 0

    def applied_to(self, sources: Mapping[str, str]) -> dict[str, str]:
        """Return the scripts with the bug in them; raises ValueError if the line is not there any more."""
        shared = self.script.startswith("_")
        chosen = [name for name, text in sources.items() if self.before in text] if shared else [self.script]
        if not chosen or any(sources[name].count(self.before) != 1 for name in chosen):
            raise ValueError(f"{self.name}: {self.script}.lua does not have exactly one {self.before!r}")
        return {
            name: text.replace(self.before, self.after) if name in chosen else text
            for name, text in sources.items()
        }


MUTANTS = (
    Mutant(
        "a job is closed before all of it is on the NAS", "_lives", "(tonumber(about[9]) or 0) > 0", "false"
    ),
    Mutant(
        "a job is closed although a file failed",
        "_lives",
        "(closing and 1 or 0)",
        "(closing and 2 or 0)",
        seed=35,
    ),
    Mutant("a job that checks is not closed", "_lives", "always == '!'", "false", seed=11),
    Mutant("a job is closed again and again", "_lives", "  redis.call('HDEL', jobkey(job), 'closing')\n", ""),
    Mutant("a job ends before it is closed", "_lives", "  elseif closing then\n", "  elseif false then\n"),
    Mutant("what was delivered is not closed", "_lives", "if state == 'delivering' then", "if false then"),
    Mutant(
        "the closing counts as a file",
        "complete",
        "add(jobkey(job), 'closed', 1)",
        "add(jobkey(job), 'x', 1)",
    ),
    Mutant("a closing is claimed ahead", "more", "or string.find(line, '\\tclosing=')", ""),
    Mutant("the epoch is not renewed", "_common", "return mint(split(token))", "return token"),
    Mutant(
        "a Redis that lost its data makes tokens again",
        "_common",
        "math.max((epoch or -1) + 1, clock())",
        "(epoch or -1) + 1",
    ),
    Mutant(
        "two tokens of one moment are the same", "_common", "(epoch or -1) + 1, clock()", "0, clock()", seed=1
    ),
    Mutant(
        "lists of workers that nobody knows are not swept",
        "tick",
        "not redis.call('ZSCORE', key('workers'), worker)",
        "false",
        seed=6,
    ),
    Mutant(
        "the reason of a wait stays with what is done",
        "_common",
        "local function absolve(job, task)\n  redis.call('HDEL', jobkey(job, 'why'), task)\n",
        "local function absolve(job, task)\n",
    ),
    Mutant(
        "the reason of a wait stays with what has failed",
        "_common",
        "'home'), task)\n  redis.call('HDEL', jobkey(job, 'why'), task)\n",
        "'home'), task)\n",
        seed=16,
    ),
    Mutant("a part that grew again counts", "complete", "told ~= '' and told or length", "length", seed=5),
    Mutant(
        "a stale report of success counts",
        "complete",
        "1, token) == 0 then return again",
        "1, token) == 7 then return again",
    ),
    Mutant(
        "a stale report of failure counts",
        "fail",
        "if not take(worker, token)",
        "if not take(worker, token) and not token",
    ),
    Mutant(
        "anybody releases anything",
        "release",
        "if take(worker, ARGV[i]) then",
        "if take(worker, ARGV[i]) or true then",
        seed=2,
    ),
    Mutant(
        "lists of the dead are not swept",
        "tick",
        "budget = budget - sweep(dead[i], budget, now, max_losses)",
        "budget = budget - 0",
    ),
    Mutant("a chunk is taken twice", "submit", "~= base or", "< base or"),
    Mutant("pause leaves the window as it is", "control", "  recall(job)   --", "  --", seed=5),
    Mutant(
        "recall loses other jobs' tokens",
        "_common",
        "keep[#keep + 1] = token",
        "keep[#keep + 1] = nil",
        seed=6,
    ),
    Mutant("recall does not count", "_common", "move(job, 'out', 'pending', #back)", "", seed=2),
    Mutant("a split file is sealed one part early", "complete", "missing <= 0", "missing <= 1", seed=1),
    Mutant(
        "a done task still counts as out",
        "complete",
        "move(job, 'out', 'done', sum.n)",
        "add(jobkey(job), 'done', sum.n)",
    ),
    Mutant("a paused job's task comes back into the window", "_common", "if runs and not", "if not", seed=5),
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
        seed=11,
    ),
    Mutant(
        "a retried task keeps its epoch",
        "retry",
        "renew(job .. '.' .. task .. '.' .. (epoch or 0))",
        "job .. '.' .. task .. '.' .. epoch",
        seed=2,
    ),
    Mutant("a job ends while retries are due", "_common", "about[4] + about[5] > 0", "about[4] > 0", seed=1),
    Mutant(
        "a job waits for held tasks for ever",
        "_common",
        "about[4] + about[5] > 0",
        "about[4] + about[5] + about[6] > 0",
        seed=1,
    ),
    Mutant(
        "a cancelled job never ends",
        "_common",
        "if about[1] == 'cancelled' then return",
        "if about[1] == '' then return",
        seed=3,
    ),
    Mutant(
        "losses use up tries",
        "_common",
        "losses = add(jobkey(job, 'tries'), task .. '!', 1)",
        "losses = add(jobkey(job, 'tries'), task, 1)",
    ),
    Mutant("what came to the dead counts as lost", "_common", "if was_dead then", "if false then", seed=1),
    Mutant("one loss more than allowed", "_common", "losses < max_losses", "losses <= max_losses", seed=1),
    Mutant("one try more than allowed", "fail", "tries < tonumber", "tries <= tonumber", seed=2),
    Mutant(
        "each stage of the housekeeping takes a whole batch", "tick", "budget = budget - #tokens", "", seed=41
    ),
    Mutant(
        "a retry takes more than a batch", "retry", "math.min(#page[2] / 2, batch)", "#page[2] / 2", seed=28
    ),
    Mutant(
        "a name is taken over with its tasks", "register", "if lease < now then", "if lease < 0 then", seed=14
    ),
    Mutant(
        "two processes share a name",
        "register",
        "if lease >= now and holder ~= incarnation",
        "if false",
        seed=6,
    ),
    Mutant("forget leaves a key", "_common", "'where', 'hosts',", "'where',"),
    Mutant(
        "a report brings a forgotten job back",
        "_common",
        "if job and not total then return nil end",
        "if job and not total then return job, task end",
        seed=2,
    ),
    Mutant(
        "what is revived still expires", "_common", "redis.call('PERSIST', jobkey(job, part))", "", seed=10
    ),
    Mutant("the same job is made twice", "create", "if existing then\n", "if existing == '' then\n"),
    Mutant("two repo types share a folder", "create", "other ~= repo_type", "other == repo_type"),
    Mutant("the host is written one byte too early", "complete", "task * 6, sum.where", "task, sum.where"),
    Mutant("the dead get work", "begin", "or not lives(worker)", ""),
    Mutant("the dead take more", "more", "if not lives(worker) then return found end\n", "", seed=14),
    Mutant("large files are claimed ahead", "more", "size <= small and", ""),
    Mutant("parts and seals are claimed ahead", "more", "string.find(line, '\\tplace=') or ", "", seed=9),
    Mutant("more is claimed than was asked for", "more", "local left = ", "local left = 9 + ", seed=6),
    Mutant(
        "a task of another job has the spec of the one before",
        "more",
        "if job == before",
        "if before",
        seed=7,
    ),
    Mutant(
        "what was in trouble stays so when it is done",
        "complete",
        "marked = redis.call('EXISTS', unpack(kept)) > 0",
        "marked = false",
    ),
    Mutant("of several reports one counts", "complete", "for i = 4, #ARGV, 5 do", "for i = 4, 8, 5 do"),
    Mutant(
        "the dead may beat",
        "beat",
        "worker) then return false end",
        "worker) then worker = ARGV[2] end",
        seed=5,
    ),
    Mutant("a beat says nothing of tails", "beat", "redis.call('ZCARD', key('tails'))", "0", seed=1),
    # Files in parts, their tails, and what is owed to the NAS.
    Mutant(
        "what is done can still be stolen",
        "complete",
        "if start or not job then untail(token) end",
        "",
        seed=1,
    ),
    Mutant(
        "what another way out leads from can still be stolen",
        "_common",
        "untail(token)\n  return true",
        "return true",
        seed=1,
    ),
    Mutant(
        "what the dead had can still be stolen", "_common", "untail(token)\n    recover", "recover", seed=1
    ),
    Mutant("what was given back can still be stolen", "leave", "untail(token)\n  local", "local", seed=10),
    Mutant("what is there of a split file stays for good", "_common", "'home', 'seals',", "'home',", seed=1),
    Mutant(
        "a stale split counts",
        "split",
        "if not take(worker, token)",
        "if not take(worker, token) and not token",
        seed=1,
    ),
    Mutant(
        "a file without missing parts waits for ever",
        "split",
        "if count == 0 then",
        "if count == 999 then",
        seed=1,
    ),
    Mutant("parts are not counted", "split", "add(jobkey(job), 'pending', count)", "", seed=1),
    Mutant(
        "what is there of a split file does not count",
        "split",
        "add(jobkey(job), 'bytes_done', there)",
        "",
        seed=1,
    ),
    Mutant(
        "what is there of a split file is not told",
        "split",
        "if ARGV[5] ~= '' then",
        "if false then",
        seed=16,
    ),
    Mutant("parts are not fed", "split", "'held')\n  wake(job)", "'held')", seed=1),
    Mutant("a seal is handed out under an old epoch", "split", "split(renew(token))", "split(token)", seed=1),
    Mutant(
        "a listing does not go on after a split",
        "submit",
        "about[1] - (about[2] or 0)",
        "tonumber(about[1])",
        seed=1,
    ),
    Mutant("files take the place of parts", "submit", "{}, {}, tonumber(about[1])", "{}, {}, base", seed=1),
    Mutant("a part has the length that its worker says", "complete", "length or bytes", "bytes", seed=1),
    Mutant(
        "a dead worker gets the seal",
        "complete",
        "sealer and redis.call('ZSCORE', key('workers'), sealer)",
        "sealer",
        seed=16,
    ),
    Mutant(
        "the seal of a paused job is handed out",
        "complete",
        "if lives and redis.call('HGET', jobkey(job), 'state') == 'running' then",
        "if lives then",
        seed=24,
    ),
    Mutant(
        "a seal counts as held and as out",
        "complete",
        "move(job, 'held', 'out')",
        "add(jobkey(job), 'out', 1)",
        seed=4,
    ),
    Mutant(
        "nobody takes a dead worker's place at the seal",
        "complete",
        "elseif not sealer or sealer == worker or not redis.call('ZSCORE', key('workers'), sealer) then",
        "elseif not sealer then",
        seed=1,
    ),
    Mutant(
        "two prepare a seal",
        "complete",
        "elseif not sealer or sealer == worker or not redis.call('ZSCORE', key('workers'), sealer) then",
        "else",
        seed=1,
    ),
    Mutant(
        "a lost reply loses who prepares the seal",
        "complete",
        "seal) == 1 and 3 or 2",
        "seal) == 1 and 2 or 2",
        seed=1,
    ),
    Mutant(
        "a part that was not written counts as written",
        "complete",
        "written == '1' and start",
        "start",
        seed=22,
    ),
    Mutant("parts done are not counted", "complete", "add(jobkey(job), 'parts_done', 1)", "", seed=1),
    Mutant("a report takes the place of another", "complete", "(n - 1), range", "0, range", seed=16),
    Mutant(
        "a seal is let go and stays held",
        "complete",
        "redis.call('HDEL', jobkey(job, 'held'), seal)",
        "",
        seed=1,
    ),
    Mutant(
        "who sees the folder again still counts as blind", "complete", "    sees(worker, job)\n", "", seed=2
    ),
    Mutant(
        "what the blind give back is not counted",
        "blind",
        "renew(token))\nmove(job, 'out', 'pending')",
        "renew(token))",
    ),
    Mutant("what the blind give back is not fed", "blind", "  wake(job)\nend", "end", seed=2),
    Mutant(
        "the dead could see the folder",
        "blind",
        "then redis.call('HDEL', jobkey(job, 'blind'), other)",
        "then",
        seed=84,
    ),
    Mutant("a job of which nobody sees the folder goes on", "blind", "nobody_sees() and", "false and"),
    Mutant("a job sleeps while somebody sees its folder", "blind", "nobody_sees() and", "true and", seed=2),
    Mutant("a job sleeps with its tasks handed out", "blind", "  recall(job)\n", "", seed=20),
    Mutant("a job sleeps for ever", "tick", "do rouse(job) end", "do end", seed=46),
    Mutant("the dead take tails", "steal", " and redis.call('ZSCORE', key('workers'), worker)", "", seed=68),
    Mutant("tails are taken before work", "steal", "redis.call('LLEN', key('ready')) == 0 and", "", seed=5),
    Mutant(
        "tails of paused jobs are taken", "steal", "'state') ~= 'running' or", "'state') == '' or", seed=5
    ),
    Mutant(
        "who loses a tail still fetches it",
        "steal",
        "task, describe(start, middle - start)",
        "task, line",
        seed=1,
    ),
    Mutant(
        "a tail begins one byte late",
        "steal",
        "describe(middle, mine)",
        "describe(middle + 1, mine - 1)",
        seed=1,
    ),
    Mutant("a seal does not wait for a tail", "steal", "add(jobkey(job, 'held'), seal, 1)", "", seed=1),
    Mutant("a tail is not counted", "steal", "{'total', 'parts', 'out'}", "{'total', 'out'}", seed=1),
    Mutant("a tail cannot be taken again", "steal", "expect(token_of_tail,", "expect(token,", seed=1),
    Mutant("a part taken as a whole stays where it was", "steal", "  take(owner, token)\n", "", seed=2),
    Mutant(
        "a part taken as a whole keeps its epoch",
        "steal",
        "local mine = renew(token)",
        "local mine = token",
        seed=2,
    ),
    Mutant("a part is taken as a whole for ever", "steal", ">= TAKEN_WHOLE then", ">= 1000 then", seed=82),
    Mutant(
        "silence is no reason",
        "steal",
        "now - part.heard >= silence",
        "now - part.heard >= 99 * silence",
        seed=2,
    ),
    Mutant(
        "a part that stalled is not relieved",
        "steal",
        "if rate == 0 then return math.max(",
        "if rate == 0 then return math.max(start + length, ",
        seed=1,
    ),
    Mutant("a fast part loses what it has", "steal", "done + rate * since / 1000", "done", seed=17),
    Mutant("tails of no worth are taken", "steal", "(rate == 0 and 1 or least)", "1", seed=48),
    Mutant(
        "a tail counts as stalled when it begins",
        "steal",
        "math.max(math.floor(speed), 1)",
        "math.floor(speed)",
        seed=11,
    ),
    Mutant("a worker splits its own parts to bits", "steal", "left < 128 * least", "left < least", seed=13),
    Mutant("a part that soon ends loses its tail", "steal", "left * 1000 < WORTH_MS * rate or", "", seed=20),
    Mutant(
        "a slow part keeps half", "steal", "(stop - here) * pace / (pace + ours)", "(stop - here) / 2", seed=5
    ),
    Mutant(
        "a part that is late counts as done",
        "steal",
        "since > left * 1000 / rate + LATE_MS",
        "false",
        seed=83,
    ),
    Mutant("unknown speeds are slow ones", "steal", "and typical()", "and 2", seed=16),
    Mutant("a slow part keeps its block", "steal", "ends(before) <= ends(middle)", "false", seed=1),
    Mutant("progress of others' parts counts", "progress", "job and mine[token] and", "job and", seed=2),
    Mutant(
        "the dead keep what they had by a report",
        "progress",
        "worker, ARGV[i + 1]",
        "'w0', ARGV[i + 1]",
        seed=1,
    ),
    Mutant(
        "a report of progress has no length",
        "progress",
        "out[#out + 1] = tonumber(length)",
        "out[#out + 1] = 0",
        seed=1,
    ),
    Mutant(
        "who asks for the records misses one",
        "parts",
        "for i = known_reports,",
        "for i = known_reports + 1,",
        seed=16,
    ),
    Mutant(
        "a failed seal is still followed",
        "parts",
        "redis.call('HEXISTS', jobkey(job, 'failed'), seal) == 1",
        "false",
        seed=17,
    ),
    Mutant(
        "anybody's seal is ours",
        "parts",
        "== prefix and split(held) then",
        "~= '' and split(held) then",
        seed=2,
    ),
    Mutant("what is owed is not counted", "complete", "add(jobkey(job), 'owed', 1)", ""),
    Mutant(
        "what is on the NAS already is not counted",
        "complete",
        "elseif owes == 'nas' then",
        "elseif owes == '' then",
    ),
    Mutant("two take the same file", "owed", "redis.call('ZADD', owed, now + ARGV[4], file)", "", seed=0),
    Mutant(
        "files of a forgotten job are owed for ever", "owed", "redis.call('ZREM', owed, file)", "", seed=9
    ),
    Mutant("a folder is asked for ever", "owed", "if redis.call('EXISTS', owed) == 0 then", "if false then"),
    Mutant("files of running jobs are taken, wanted or not", "owed", "ARGV[5] == '1' and", "false and"),
    Mutant("what is brought comes back", "keep", "'XX', ", ""),
    Mutant("a file is brought twice", "deliver", "ARGV[3]) == 0 then", "ARGV[3]) == 2 then"),
    Mutant("a job does not end with its last file", "deliver", "settle(job, clock())", ""),
    Mutant(
        "a delivery brings a forgotten job back",
        "deliver",
        "if redis.call('EXISTS', jobkey(job)) == 0 then return 0 end",
        "",
        seed=1,
    ),
    Mutant(
        "what is on the NAS is fetched again",
        "redo",
        "not redis.call('ZSCORE', owed, token)",
        "false",
        seed=3,
    ),
    Mutant("a damaged file still counts as done", "redo", "move(job, 'done', 'delayed')", "", seed=3),
    Mutant(
        "a damaged file keeps its bit",
        "redo",
        "redis.call('SETBIT', jobkey(job, 'done'), task, 0)\n",
        "",
        seed=3,
    ),
    Mutant("a damaged file stays owed", "redo", "redis.call('ZREM', owed, token)\n", "", seed=3),
    Mutant("a damaged file still counts as owed", "redo", "add(jobkey(job), 'owed', -1)\n", "", seed=3),
    Mutant(
        "bytes of a damaged file still count",
        "redo",
        "add(jobkey(job), 'bytes_done', 0 - size)\n",
        "",
        seed=3,
    ),
    Mutant(
        "a damaged seal takes what its parts brought",
        "redo",
        "string.find(line, '\\tplace=') and 0 or ",
        "",
        seed=1,
    ),
    Mutant("a damaged file keeps its epoch", "redo", "LONGEST), renew(token)", "LONGEST), token", seed=3),
    Mutant("a job delivers what it has not got", "redo", "about[1] == 'delivering' or ", "", seed=9),
    Mutant("a job that failed has what can move", "redo", " or about[1] == 'failed'", "", seed=1),
    Mutant(
        "a damaged file goes on in a job that nobody wants",
        "redo",
        "failed = true}",
        "failed = true, cancelled = true}",
        seed=21,
    ),
    Mutant("a file is fetched again for ever", "redo", "found >= tonumber(ARGV[5]) or ", ""),
    Mutant(
        "how often a file was damaged is not counted",
        "redo",
        "add(jobkey(job, 'tries'), task .. '*', 1)\n",
        "",
        seed=28,
    ),
    Mutant("a name is anybody's", "register", "'^%d+ %S+ %S+ (.*)$'", "'^%d+ (.*)$'", seed=3),
)
