-- Pause, resume or cancel a job: flip its state and take its tasks out of the window.
--
-- ARGV[2] -> verb: pause, resume or cancel
-- ARGV[3] -> job
--
-- Returns 1 when the job is now as asked (also when it was before: nothing is touched then),
-- 0 when its state does not allow that, or it is gone.
local verb, job, now = ARGV[2], ARGV[3], clock()
local state = redis.call('HGET', jobkey(job), 'state')
local wanted = ({pause = 'paused', resume = 'running', cancel = 'cancelled'})[verb]
if state == wanted then
  wake(job)   -- a call before this one may have broken off on the way
  return 1
end

if verb == 'resume' and (state == 'paused' or state == 'cancelled') then
  if faded(job) then return 0 end
  revive(job)
  redis.call('ZREM', key('asleep'), job)
  wake(job)
elseif (verb == 'pause' and state == 'running') or (verb == 'cancel' and (state == 'running' or state == 'paused')) then
  recall(job)   -- first: a Redis that is full takes no state, unless something was removed before
  redis.call('HSET', jobkey(job), 'state', wanted)
else
  return 0
end
feed()
settle(job, now)
return 1
