-- A worker starts on the token it claimed: ready -> active was BRPOPLPUSH, this checks it.
--
-- ARGV[2] -> worker
-- ARGV[3] -> token
--
-- Returns {descriptor, spec, failures so far, ms to keep away from the hub, failures because of a host that was
-- away}, or nil: the token is not in the worker's list, or was dropped (job gone, no token of ours), or was given
-- back (the worker was declared dead, the job does not run).
local worker, token = ARGV[2], ARGV[3]

if not holds(worker, token) then return false end
feed()
local job, task = known(token)
if job and redis.call('GETBIT', jobkey(job, 'done'), task) == 1 then   -- never one of ours
  poison(token)
  job = nil
end
if not job then
  take(worker, token)
  return false
end

local about = redis.call('HMGET', jobkey(job), 'state', 'spec', 'endpoint')
if about[1] ~= 'running' or not redis.call('ZSCORE', key('workers'), worker) then
  take(worker, token)
  requeue(job, token)
  settle(job, clock())
  feed()
  return false
end
local line = redis.call('HGET', jobkey(job, 'tasks'), task) or ''
local _, _, seal = part_of(line)
if not seal and string.find(line, '\tplace=') then seal = task end
if seal and not own(file_of(job, seal), job, seal) then   -- meanwhile another job began with the file
  take(worker, token)
  put_off(job, token)
  return false
end
-- Nothing that we write is so long; the worker would only be busy with it.
local function sane(text) return text and #text <= 1048576 and text or '' end
local tries = redis.call('HMGET', jobkey(job, 'tries'), task, task .. '?')
return {
  sane(line),
  sane(about[2]),
  number(tries[1]),
  math.max(redis.call('PTTL', key('hold:' .. (about[3] or ''))), 0),
  number(tries[2]),
}
