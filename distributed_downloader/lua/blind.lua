-- A worker gives a task back whose folder it does not see, or whose hub it does not reach: active -> pending, no
-- penalty.  Behind all that waits, for it would be the worker's next claim again, and keep it from the jobs that it
-- can work for.  When that is so for all living workers, the job sleeps for a while, or until one joins, sees
-- another folder or gets on with a task of it.
--
-- ARGV[2] -> worker
-- ARGV[3] -> token
-- ARGV[4] -> why
--
-- Returns 1 if others may do better, 2 if the job sleeps now, or 0: not in the worker's list, and
-- nothing is touched, or its job is gone.
local worker, token, SLEEP = ARGV[2], ARGV[3], 15000
if not take(worker, token) then return 0 end
local job = known(token)
if not job then return 0 end
redis.call('HSET', jobkey(job, 'blind'), worker, clock() .. ' ' .. ARGV[4])
redis.call('LPUSH', jobkey(job, 'pending'), renew(token))
move(job, 'out', 'pending')

local function nobody_sees()
  for _, other in ipairs(redis.call('HKEYS', jobkey(job, 'blind'))) do
    if not redis.call('ZSCORE', key('workers'), other) then redis.call('HDEL', jobkey(job, 'blind'), other) end
  end
  return redis.call('HLEN', jobkey(job, 'blind')) == redis.call('ZCARD', key('workers'))
end

local sleeps = nobody_sees() and redis.call('HGET', jobkey(job), 'state') == 'running'
if sleeps then
  recall(job)
  redis.call('ZADD', key('asleep'), clock() + SLEEP, job)
else
  wake(job)
end
feed()
settle(job, clock())
return sleeps and 2 or 1
