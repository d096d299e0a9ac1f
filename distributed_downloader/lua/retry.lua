-- Queue failed tasks again, with all their tries: failed -> pending.
--
-- ARGV[2] -> job
-- ARGV[3] -> cursor: "0" at first, then what the call before returned
-- ARGV[4] -> batch
--
-- Returns {how many were queued, next cursor}; the walk over the failed is complete when the cursor
-- is "0" again.
local job, cursor, batch = ARGV[2], ARGV[3], tonumber(ARGV[4])
local state = redis.call('HGET', jobkey(job), 'state')
if not state or state == 'done' or state == 'cancelled' or faded(job) then return {0, '0'} end

local page = redis.call('HSCAN', jobkey(job, 'failed'), cursor, 'COUNT', batch)
local n = math.min(#page[2] / 2, batch)
if n == 0 then return {0, page[1]} end
if n == #page[2] / 2 then cursor = page[1] end   -- else the rest of this page comes next time
for i = 1, 2 * n, 2 do
  local task, epoch = page[2][i], string.match(page[2][i + 1], '^(%d+)\t')
  redis.call('HDEL', jobkey(job, 'failed'), task)
  absolve(job, task)
  redis.call('LPUSH', jobkey(job, 'pending'), renew(job .. '.' .. task .. '.' .. (epoch or 0)))
end
move(job, 'failed', 'pending', n)
if state == 'failed' then revive(job) end
wake(job)
feed()
return {n, cursor}
