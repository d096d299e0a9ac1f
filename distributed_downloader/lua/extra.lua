-- Say which files a check found that are none of the job's, for `status`; nothing depends on it.
--
-- ARGV[2] -> job
-- ARGV[3] -> what was found, as JSON
--
-- Returns 1, or 0 if the job is gone.
if redis.call('EXISTS', jobkey(ARGV[2])) == 0 then return 0 end
redis.call('HSET', jobkey(ARGV[2]), 'extra', ARGV[3])
return 1
