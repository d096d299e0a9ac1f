-- The listing is complete: from now on the job may end.
--
-- ARGV[2] -> job
--
-- Returns 1, or 0 if the job is gone.
local job = ARGV[2]
if redis.call('EXISTS', jobkey(job)) == 0 then return 0 end
redis.call('HSET', jobkey(job), 'sealed', 1)
settle(job, clock())
return 1
