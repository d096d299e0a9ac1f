-- Remove a job in any state, with all its keys.  What its workers do is dropped when they report.
--
-- ARGV[2] -> job
--
-- Returns 1, or 0 if there is no such job.
local job = ARGV[2]
if not redis.call('ZSCORE', key('jobs'), job) then return 0 end
withdraw(job)
erase(job)
feed()
return 1
