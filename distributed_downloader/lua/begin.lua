-- A worker starts on the token it claimed: ready -> active was BRPOPLPUSH, this checks it.
--
-- ARGV[2] -> worker
-- ARGV[3] -> token
--
-- Returns {descriptor, spec, failures so far, ms to keep away from the hub}, or nil: the token is
-- not in the worker's list, or was dropped (job gone, no token of ours), or was given back (the
-- worker was declared dead, the job does not run).
local worker, token = ARGV[2], ARGV[3]
local mine = key('active:' .. worker)

local function holds()
  for _, held in ipairs(redis.call('LRANGE', mine, 0, -1)) do
    if held == token then return true end
  end
end

if not holds() then return false end
feed()
local job, task = known(token)
if job and redis.call('GETBIT', jobkey(job, 'done'), task) == 1 then   -- never one of ours
  poison(token)
  job = nil
end
if not job then
  redis.call('LREM', mine, 1, token)
  return false
end

local about = redis.call('HMGET', jobkey(job), 'state', 'spec', 'endpoint')
if about[1] ~= 'running' or not redis.call('ZSCORE', key('workers'), worker) then
  redis.call('LREM', mine, 1, token)
  requeue(job, token)
  settle(job, clock())
  feed()
  return false
end
return {
  redis.call('HGET', jobkey(job, 'tasks'), task) or '',
  about[2] or '',
  tonumber(redis.call('HGET', jobkey(job, 'tries'), task) or 0) or 0,
  math.max(redis.call('PTTL', key('hold:' .. (about[3] or ''))), 0),
}
