-- A try went wrong: active -> delayed, or active -> failed when there is no other try.
--
-- ARGV[2] -> worker
-- ARGV[3] -> token
-- ARGV[4] -> failure as JSON
-- ARGV[5] -> ms until the next try, -1 = another try cannot help
-- ARGV[6] -> max tries
-- ARGV[7] -> what is counted: "" = a failure; those that say little about the file: "~" = not now, "?" = a host is away
-- ARGV[8] -> ms for which the retry is offered to the host first, 0 = to everybody at once
-- ARGV[9] -> host with the partial bytes
-- ARGV[10] -> what kind of error it was: errors.kind
--
-- Returns 0 stale: not in the worker's list, nothing is touched, 1 will be tried again, 2 failed.
local worker, token = ARGV[2], ARGV[3]
local delay, parked = tonumber(ARGV[5]), tonumber(ARGV[8])
if not take(worker, token) then return 0 end
local job, task = known(token)
if not job then return 0 end

local now, verdict = clock(), 2
local tries = add(jobkey(job, 'tries'), task .. ARGV[7], 1)
if delay >= 0 and tries < tonumber(ARGV[6]) then
  redis.call('ZADD', key('delayed'), now + delay, renew(token))
  move(job, 'out', 'delayed')
  if parked > 0 then
    redis.call('HSET', jobkey(job, 'home'), task, parked .. ' ' .. ARGV[9])
  else
    redis.call('HDEL', jobkey(job, 'home'), task)
  end
  explain(job, task, ARGV[4])
  verdict = 1
else
  bury(token, ARGV[4])
end
add(jobkey(job, 'reasons'), ARGV[10], 1)
settle(job, now)
return verdict
