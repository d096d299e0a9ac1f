-- Take a retry whose partial bytes lie on this worker's host: parked -> active.
--
-- ARGV[2] -> worker
-- ARGV[3] -> host
-- ARGV[4] -> batch
--
-- Returns a token, or nil.  Retries of jobs that do not run go back to their jobs.
local worker, host = ARGV[2], ARGV[3]
if not redis.call('ZSCORE', key('workers'), worker) then return false end
for _ = 1, tonumber(ARGV[4]) do
  local token = redis.call('ZPOPMIN', key('parked:' .. host))[1]
  if not token then
    redis.call('SREM', key('parked'), host)
    return false
  end
  local job = known(token)
  if job and redis.call('HGET', jobkey(job), 'state') == 'running' then
    redis.call('LPUSH', key('active:' .. worker), token)
    move(job, 'pending', 'out')
    return token
  end
  if job then redis.call('LPUSH', jobkey(job, 'pending'), token) end
end
return false
