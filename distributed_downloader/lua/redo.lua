-- A file that was done, and is not on the NAS yet, is not what it was any more: done -> delayed.
--
-- ARGV[2] -> id of the folder that owes it
-- ARGV[3] -> token with which it was done
-- ARGV[4] -> what was found, as JSON
-- ARGV[5] -> how often that may be found; then the folder is at fault, and a person has to look
--
-- Returns 1 it is fetched again, 0 not owed (any more), 2 it stays owed: it was found too often, the job does
-- not want it any more, another commit may have its name in the folder, or nobody knows any more that it was
-- done. Nothing is touched but for 1.
local owed, token, LONGEST = key('owed:' .. ARGV[2]), ARGV[3], 300
local WANTS = {running = true, paused = true, delivering = true, failed = true}
probe()
local job, task = split(token)
if not job or not redis.call('ZSCORE', owed, token) then return 0 end
local about = redis.call('HMGET', jobkey(job), 'state', 'replaced')
local line = redis.call('HGET', jobkey(job, 'tasks'), task)
if not about[1] or not line then return 0 end
local found = number(redis.call('HGET', jobkey(job, 'tries'), task .. '*')) + 1
local done = redis.call('GETBIT', jobkey(job, 'done'), task) == 1   -- else somebody overwrote what is done
if not done or found >= tonumber(ARGV[5]) or about[2] or not WANTS[about[1]] then return 2 end

-- A split file comes back as its seal, which fetches what is missing: all that its parts brought.
local size = string.find(line, '\tplace=') and 0 or string.match(line, '^%d+') or 0
if about[1] == 'delivering' or about[1] == 'failed' then revive(job) end
explain(job, task, ARGV[4])
redis.call('ZREM', owed, token)
redis.call('SETBIT', jobkey(job, 'done'), task, 0)
redis.call('ZADD', key('delayed'), clock() + 1000 * math.min(2 ^ found, LONGEST), renew(token))
add(jobkey(job, 'tries'), task .. '*', 1)
add(jobkey(job), 'bytes_done', 0 - size)
add(jobkey(job), 'owed', -1)
move(job, 'done', 'delayed')
return 1
