-- Shared by the scripts that hand tasks to workers, behind _lives.lua.

-- Nothing that we write is so long; the worker would only be busy with it.
local function sane(text) return text and #text <= 1048576 and text or '' end

-- Whether the worker of this script lives.
local living
local function lives(worker)
  if living == nil then living = redis.call('ZSCORE', key('workers'), worker) end
  return living
end

-- State, spec and endpoint of a job, and the ms to keep away from that; asked once, as nothing here changes them.
local seen, pauses = {}, {}
local function look(job)
  if seen[job] then return seen[job] end
  local about = redis.call('HMGET', jobkey(job), 'state', 'spec', 'endpoint', 'total')
  local hub = about[3] or ''
  totals[job] = about[4]
  pauses[hub] = pauses[hub] or math.max(redis.call('PTTL', key('hold:' .. hub)), 0)
  seen[job] = {state = about[1], spec = sane(about[2]), pause = pauses[hub]}
  return seen[job]
end

-- A worker starts on a token in its list; `line` is the task's descriptor, if that is known.
--
-- Returns {descriptor, spec, failures so far, ms to keep away from the hub, failures because of a host that was
-- away}, or false: the token was dropped (job gone, no token of ours), or was given back (the worker was declared
-- dead, the job does not run).
local function begun(worker, token, line)
  local job, task = split(token)
  local about = job and look(job)
  job, task = known(token)
  if job and redis.call('GETBIT', jobkey(job, 'done'), task) == 1 then   -- never one of ours
    poison(token)
    job = nil
  end
  if not job then
    take(worker, token)
    return false
  end

  if about.state ~= 'running' or not lives(worker) then
    take(worker, token)
    requeue(job, token)
    settle(job, clock())
    feed()
    return false
  end
  line = line or redis.call('HGET', jobkey(job, 'tasks'), task) or ''
  local _, _, seal = part_of(line)
  if not seal and string.find(line, '\tplace=') then seal = task end
  if seal and not own(file_of(job, seal), job, seal) then   -- meanwhile another job began with the file
    take(worker, token)
    put_off(job, token)
    return false
  end
  local tries = redis.call('HMGET', jobkey(job, 'tries'), task, task .. '?')
  return {sane(line), about.spec, number(tries[1]), about.pause, number(tries[2])}
end
