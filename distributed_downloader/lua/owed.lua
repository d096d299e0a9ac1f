-- Take files that have to get from a folder to the NAS; others do not see them for a while.
--
-- ARGV[2] -> id of the folder
-- ARGV[3] -> how many at most
-- ARGV[4] -> ms for which they are ours
-- ARGV[5] -> "1" = only of jobs that have been downloaded as a whole
--
-- Returns {token, descriptor, spec, token, descriptor, spec ...}: the tokens with which the files were done.
local folder, now, out = ARGV[2], clock(), {}
local owed, LATER = key('owed:' .. folder), 60000
for _, file in ipairs(redis.call('ZRANGEBYSCORE', owed, '-inf', now, 'LIMIT', 0, ARGV[3])) do
  local job, task = split(file)
  local about = job and redis.call('HMGET', jobkey(job), 'state', 'spec') or {}
  local line = about[1] and redis.call('HGET', jobkey(job, 'tasks'), task)
  if not line then   -- its job was forgotten, or nobody can say any more what it is
    redis.call('ZREM', owed, file)
    if about[1] and within(task, total_of(job)) then
      add(jobkey(job), 'owed', -1)
      settle(job, now)
    end
  elseif ARGV[5] == '1' and (about[1] == 'running' or about[1] == 'paused') then
    redis.call('ZADD', owed, now + LATER, file)
  else
    redis.call('ZADD', owed, now + ARGV[4], file)
    for _, word in ipairs({file, line, about[2]}) do out[#out + 1] = word end
  end
end
if redis.call('EXISTS', owed) == 0 then redis.call('HDEL', key('folders'), folder) end
return out
