-- The listing is complete: from now on the job may end.
--
-- ARGV[2] -> job
-- ARGV[3] -> how many files it has
-- ARGV[4] -> identity of the job, if that is known
-- ARGV[5] -> descriptor of the task that closes the job, or "": it waits for all others, see settle()
-- ARGV[6] -> "1" = it does not matter to it whether these have failed
--
-- Returns 1, or 0 if the job is gone, or has not all of them: Redis lost the end of the listing.
local job, closing = ARGV[2], ARGV[5]
local about = redis.call('HMGET', jobkey(job), 'total', 'parts', 'closings', 'sealed', 'held')
local files = about[1] and about[1] - number(about[2]) - number(about[3])
if not is_that(job, ARGV[4]) or files ~= tonumber(ARGV[3]) then return 0 end
if closing == '' then
  redis.call('HSET', jobkey(job), 'sealed', 1)
elseif about[4] ~= '1' then
  redis.call('HSET', jobkey(job, 'tasks'), about[1], closing)
  redis.call('HSET', jobkey(job, 'held'), about[1], 1)
  redis.call('HSET', jobkey(job), 'sealed', 1, 'closing', about[1] .. (ARGV[6] == '1' and '!' or ''),   -- at once: a full Redis may end this anywhere
    'total', about[1] + 1, 'closings', 1, 'held', number(about[5]) + 1)
end
settle(job, clock())
return 1
