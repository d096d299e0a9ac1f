-- A worker gives a task back whose folder it does not see: active -> pending, no penalty.  Behind all that
-- waits, for it would be the worker's next claim again, and keep it from the jobs that it can work for.
--
-- ARGV[2] -> worker
-- ARGV[3] -> token
-- ARGV[4] -> what it sees instead
--
-- Returns 1, or 0 stale: not in the worker's list, nothing is touched.
local worker, token = ARGV[2], ARGV[3]
if not take(worker, token) then return 0 end
local job = known(token)
if not job then return 0 end
for _, other in ipairs(redis.call('HKEYS', jobkey(job, 'blind'))) do
  if not redis.call('ZSCORE', key('workers'), other) then redis.call('HDEL', jobkey(job, 'blind'), other) end
end
redis.call('HSET', jobkey(job, 'blind'), worker, ARGV[4])
redis.call('LPUSH', jobkey(job, 'pending'), renew(token))
move(job, 'out', 'pending')
wake(job)
feed()
settle(job, clock())
return 1
