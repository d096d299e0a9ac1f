-- Shared by every script, behind _common.lua: how tasks, jobs and workers come to an end.

-- What an ended job leaves, and for how long once it owes nothing; everything is kept for good when it is revived.
local KEPT = {
  [7 * DAY] = {'tasks', 'done', 'where', 'hosts', 'pending', 'held', 'home', 'seals', 'sealer', 'records', 'blind',
    'why'},
  [30 * DAY] = {'', 'failed', 'tries', 'reasons'},
}

-- A split file is put together by one job at a time: two would write into one file, and one would
-- publish what the other still writes.  Returns false while another living job is at it.
local function own(file, job, seal)
  if file == '' then return true end
  local owner = redis.call('HGET', key('splitting'), file)
  local other, task = string.match(owner or '', '^(%d+)%.(%d+)$')
  if other and (other ~= job or task ~= seal) then
    local state = redis.call('HGET', jobkey(other), 'state')
    if (state == 'running' or state == 'paused') and redis.call('HEXISTS', jobkey(other, 'seals'), task) == 1
      and redis.call('GETBIT', jobkey(other, 'done'), task) == 0
      and redis.call('HEXISTS', jobkey(other, 'failed'), task) == 0 then return false end
  end
  redis.call('HSET', key('splitting'), file, job .. '.' .. seal)
  return true
end

local function file_of(job, seal)
  return string.match(redis.call('HGET', jobkey(job, 'seals'), seal) or '', '^%d+ %d+ (.+)$') or ''
end

local function disown(job, seal)
  local file = file_of(job, seal)
  if file ~= '' and redis.call('HGET', key('splitting'), file) == job .. '.' .. seal then
    redis.call('HDEL', key('splitting'), file)
  end
end

-- A task comes back later, without a penalty: out -> delayed.
local PUT_OFF = 15000
local function put_off(job, token)
  local _, task = split(token)
  redis.call('HDEL', jobkey(job, 'why'), task)
  redis.call('ZADD', key('delayed'), clock() + PUT_OFF, renew(token))
  move(job, 'out', 'delayed')
  feed()
end

-- Why a task waits, for whoever looks on. Not more than that, for it may be all tasks that fail while the
-- hub is away.
local REASONS, LONGEST_REASON = 1000, 2000
local function explain(job, task, failure)
  local why = jobkey(job, 'why')
  local room = redis.call('HEXISTS', why, task) == 1 or redis.call('HLEN', why) < REASONS
  if room and #failure <= LONGEST_REASON then redis.call('HSET', why, task, failure) end
end

-- Forget how often a task went wrong, and why: failures, failures that say little about it (two kinds), losses.
local function absolve(job, task)
  redis.call('HDEL', jobkey(job, 'why'), task)
  redis.call('HDEL', jobkey(job, 'tries'), task, task .. '~', task .. '?', task .. '!')
end

-- The epoch is kept with the failure, so that a later retry goes on counting from there.
local function bury(token, failure)
  local job, task, epoch = split(token)
  redis.call('HSET', jobkey(job, 'failed'), task, epoch .. '\t' .. failure)
  redis.call('HDEL', jobkey(job, 'home'), task)
  redis.call('HDEL', jobkey(job, 'why'), task)
  move(job, 'out', 'failed')
end

-- What is still owed to the NAS is in the list of tasks, so that stays until nothing is.
local function fade(job)
  local owed = tonumber(redis.call('HGET', jobkey(job), 'owed') or '') or 0
  if owed > 0 or redis.call('PTTL', jobkey(job)) ~= -1 then return end
  for ms, parts in pairs(KEPT) do
    for _, part in ipairs(parts) do redis.call('PEXPIRE', jobkey(job, part), ms) end
  end
end

local function finish(job, state, now)
  redis.call('HSET', jobkey(job), 'state', state, 'ended_at', now)
  redis.call('ZREM', key('fair'), job)
  redis.call('ZADD', key('ended'), now + 30 * DAY, job)
  fade(job)
end

local function revive(job)
  redis.call('HSET', jobkey(job), 'state', 'running')
  redis.call('HDEL', jobkey(job), 'ended_at')
  redis.call('ZREM', key('ended'), job)
  for _, parts in pairs(KEPT) do
    for _, part in ipairs(parts) do redis.call('PERSIST', jobkey(job, part)) end
  end
end

-- Whether an ended job has already lost the list of its tasks.
local function faded(job)
  local about = redis.call('HMGET', jobkey(job), 'ended_at', 'total')
  return about[1] and about[2] ~= '0' and redis.call('EXISTS', jobkey(job, 'tasks')) == 0
end

-- The last task of a job waits for nothing any more: held -> pending.
local function let_close(job, task, state)
  redis.call('RPUSH', jobkey(job, 'pending'), mint(job, task))
  redis.call('HDEL', jobkey(job, 'held'), task)
  redis.call('HDEL', jobkey(job), 'closing')
  move(job, 'held', 'pending')
  if state == 'delivering' then redis.call('HSET', jobkey(job), 'state', 'running') end
  wake(job)
  feed()
end

-- End a job in which nothing can move any more.  Tasks still held wait for a failed part; its
-- retry brings them along.  A cancelled job ends when its last task left its worker, and one that
-- is complete when its last file is on the NAS, and what closes it is done.
local function settle(job, now)
  local about = redis.call('HMGET', jobkey(job),
    'state', 'sealed', 'out', 'pending', 'delayed', 'held', 'failed', 'ended_at', 'owed', 'closing')
  for i = 3, 7 do about[i] = tonumber(about[i]) or 0 end
  if about[8] then return fade(job) end
  if about[3] > 0 then return end
  if about[1] == 'cancelled' then return finish(job, 'cancelled', now) end
  if about[2] ~= '1' or about[4] + about[5] > 0 then return end
  local closing, always = string.match(about[10] or '', '^(%d+)(!?)$')
  if about[6] + about[7] > (closing and 1 or 0) then
    if always == '!' then return let_close(job, closing, about[1]) end
    return finish(job, 'failed', now)
  end
  if (tonumber(about[9]) or 0) > 0 then
    redis.call('HSET', jobkey(job), 'state', 'delivering')
    redis.call('ZREM', key('fair'), job)
  elseif closing then
    let_close(job, closing, about[1])
  else
    finish(job, 'done', now)
  end
end

-- Remove every key and every index entry of a job.  Tokens of it that still lie in workers'
-- lists, delayed or parked are dropped by whoever meets them next: see known().
local function erase(job)
  local keys = {}
  for _, seal in ipairs(redis.call('HKEYS', jobkey(job, 'seals'))) do disown(job, seal) end
  for _, parts in pairs(KEPT) do
    for _, part in ipairs(parts) do keys[#keys + 1] = jobkey(job, part) end
  end
  redis.call('UNLINK', unpack(keys))
  for _, index in ipairs({'jobs', 'ended', 'fair', 'asleep'}) do redis.call('ZREM', key(index), job) end
  local identity, place = string.match(redis.call('HGET', key('names'), job) or '', '^(%S+) (%S+)$')
  if not identity then return end
  redis.call('HDEL', key('names'), job)
  redis.call('HDEL', key('identities'), identity)
  redis.call('ZREM', key('place:' .. place), job)
end

-- A worker is no more.  A late BRPOPLPUSH may still land in its list, so its name is kept for a while.
local function strike(worker, now)
  redis.call('ZREM', key('workers'), worker)
  redis.call('HDEL', key('fleet'), worker)
  redis.call('DEL', key('worker:' .. worker))
  redis.call('ZADD', key('dead'), 'NX', now, worker)
end

-- One task was lost with its worker: back into the queue, unless that happened too often. One that came to a worker
-- that was dead already has killed nobody: where machines lose their power, their claims wait on for a while.
local function recover(token, now, max_losses, was_dead)
  local job, task = known(token)
  if not job then return end
  if was_dead then
    requeue(job, token)
    return settle(job, now)
  end
  local losses = add(jobkey(job, 'tries'), task .. '!', 1)
  if losses < max_losses then
    requeue(job, token)
  else
    local line = redis.call('HGET', jobkey(job, 'tasks'), task) or ''
    bury(token, cjson.encode({
      path = string.match(line, '^[^\t]*\t[^\t]*\t([^\t]*)') or '?',
      error = 'lost with its worker ' .. losses .. ' times; this file may be what kills them',
      host = '', tries = losses, at = now / 1000,
    }))
  end
  add(jobkey(job, 'reasons'), 'lost', 1)
  settle(job, now)
end

-- Recover up to n tasks from a worker's list; returns how many.
local function sweep(worker, n, now, max_losses)
  local was_dead = number(redis.call('ZSCORE', key('dead'), worker) or now) < now
  for i = 1, n do
    local token = redis.call('RPOP', key('active:' .. worker))
    if not token then return i - 1 end
    untail(token)
    recover(token, now, max_losses, was_dead)
  end
  return n
end
