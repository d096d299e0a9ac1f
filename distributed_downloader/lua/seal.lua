-- The listing is complete: from now on the job may end.
--
-- ARGV[2] -> job
-- ARGV[3] -> how many files it has
-- ARGV[4] -> identity of the job, if that is known
--
-- Returns 1, or 0 if the job is gone, or has not all of them: Redis lost the end of the listing.
local job = ARGV[2]
local about = redis.call('HMGET', jobkey(job), 'total', 'parts')
if not is_that(job, ARGV[4]) or not about[1] or about[1] - (about[2] or 0) ~= tonumber(ARGV[3]) then return 0 end
redis.call('HSET', jobkey(job), 'sealed', 1)
settle(job, clock())
return 1
