-- Say why large files of a job are not split, for `status`; nothing depends on it.
--
-- ARGV[2] -> job
-- ARGV[3] -> reason
--
-- Returns 1, or 0 if the job is gone: a key of it must not come back.
local job = ARGV[2]
if redis.call('EXISTS', jobkey(job)) == 0 then return 0 end
redis.call('HSET', jobkey(job), 'unsplit', ARGV[3])
return 1
