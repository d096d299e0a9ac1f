-- A task is done: active -> done (and held -> pending, when it was the last part of a file).
--
-- ARGV[2] -> worker
-- ARGV[3] -> token
-- ARGV[4] -> bytes of the task
-- ARGV[5] -> host where the file lies
-- ARGV[6] -> task that waits for this part, or ""
--
-- Returns 1 counted, 0 stale: not in the worker's list, nothing is touched, 2 already done.
local worker, token, host, waiting = ARGV[2], ARGV[3], ARGV[5], ARGV[6]
if redis.call('LREM', key('active:' .. worker), 1, token) == 0 then
  local job, task = split(token)
  return job and redis.call('GETBIT', jobkey(job, 'done'), task) * 2 or 0
end
local job, task = known(token)
if not job then return 0 end

-- Hosts are numbered from 1 as they appear; two bytes per task say where it lies.
local function remember()
  local number = tonumber(redis.call('HGET', jobkey(job, 'hosts'), host) or 0)
  if number == 0 then
    number = redis.call('HLEN', jobkey(job, 'hosts')) + 1
    if number > 65535 then return end
    redis.call('HSET', jobkey(job, 'hosts'), host, number)
  end
  redis.call('SETRANGE', jobkey(job, 'where'), task * 2, string.char(math.floor(number / 256), number % 256))
end

redis.call('SETBIT', jobkey(job, 'done'), task, 1)
absolve(job, task)
redis.call('HDEL', jobkey(job, 'home'), task)
pcall(remember)   -- only `files` wants to know: it must not keep a job from ending
add(jobkey(job), 'bytes_done', ARGV[4])
move(job, 'out', 'done')
if waiting ~= '' and redis.call('HEXISTS', jobkey(job, 'held'), waiting) == 1
  and redis.call('HINCRBY', jobkey(job, 'held'), waiting, -1) <= 0 then
  redis.call('HDEL', jobkey(job, 'held'), waiting)
  redis.call('RPUSH', jobkey(job, 'pending'), job .. '.' .. waiting .. '.0')
  move(job, 'held', 'pending')
  wake(job)
end
feed()
settle(job, clock())
return 1
