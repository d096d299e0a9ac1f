-- Shared by every script, prepended when it is loaded.
--
-- KEYS[1] -> the namespace, e.g. "{hfd}:"; its hash tag keeps all keys in one Cluster slot
-- ARGV[1] -> the time in ms, or "" for the server's own clock (tests bring theirs)
--
-- A token is "<job>.<task>.<epoch>".  The epoch grows whenever the task goes back into a
-- queue, so a token is handed to a worker at most once in its life: it is the fence.

local DAY = 24 * 3600 * 1000
-- What an ended job leaves, and for how long once it owes nothing; everything is kept for good when it is revived.
local KEPT = {
  [7 * DAY] = {'tasks', 'done', 'where', 'hosts', 'pending', 'held', 'home', 'seals', 'sealer', 'records', 'blind'},
  [30 * DAY] = {'', 'failed', 'tries'},
}
local POISON_KEPT = 100

local function key(name) return KEYS[1] .. name end

local function jobkey(job, part)
  if part and part ~= '' then return key('job:' .. job .. ':' .. part) end
  return key('job:' .. job)
end

local function clock()
  if ARGV[1] ~= '' then return tonumber(ARGV[1]) end
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

local function poison(what)   -- what does not belong here, for a person to look at
  redis.call('LPUSH', key('poison'), what)
  redis.call('LTRIM', key('poison'), 0, POISON_KEPT - 1)
end

local function split(token)
  if #token > 48 then return nil end
  return string.match(token, '^(%d+)%.(%d+)%.(%d+)$')
end

local function total_of(job) return redis.call('HGET', jobkey(job), 'total') end

local function within(task, total)
  return not string.match(task, '^0%d') and tonumber(task) < (tonumber(total) or 0)
end

-- Job and task of a token that was just taken out of a queue, or nil if it is to be dropped:
-- the job was forgotten, or it is no token of ours at all.
local function known(token)
  local job, task = split(token)
  local total = job and total_of(job)
  if job and not total then return nil end
  if job and within(task, total) then return job, task end
  poison(token)
  return nil
end

-- First byte, length and waiting task of a part, or nil for any other descriptor.
local function part_of(line)
  return string.match(line or '', '\tpart=(%d+)%+(%d+)\tseal=(%d+)\t')
end

-- Ms that a part still takes at so many bytes a second: 0 = it has stalled, 1 = nobody knows yet.
local UNKNOWN = 1000000
local function ms_for(bytes, rate)
  return math.floor(bytes * 1000 / (rate == 1 and UNKNOWN or math.max(rate, 1)))
end

-- A part is in nobody's hands any more: no idle worker may take from it.
local function untail(token)
  redis.call('ZREM', key('tails'), token)
  redis.call('HDEL', key('progress'), token)
end

-- Take a token out of a worker's hands; false if it is not there.
local function take(worker, token)
  if redis.call('LREM', key('active:' .. worker), 1, token) == 0 then return false end
  untail(token)
  return true
end

-- Whether a worker has a token in hand.
local function holds(worker, token)
  for _, held in ipairs(redis.call('LRANGE', key('active:' .. worker), 0, -1)) do
    if held == token then return true end
  end
  return false
end

local function renew(token)
  local job, task, epoch = split(token)
  return job .. '.' .. task .. '.' .. (epoch + 1)
end

-- Add to a number in a hash; one that somebody overwrote with text must not stop the fleet.
local function add(hash, field, n)
  local reply = redis.pcall('HINCRBY', hash, field, n)
  if type(reply) ~= 'table' then return reply end
  poison(hash .. ' ' .. field .. ': ' .. tostring(redis.call('HGET', hash, field)))
  redis.call('HSET', hash, field, n)
  return n
end

local function move(job, from, to, n)
  if n == 0 then return end
  add(jobkey(job), from, -(n or 1))
  add(jobkey(job), to, n or 1)
end

-- Let a job take part in the feed, if it runs and has something to feed.  Who comes (back)
-- starts at the present virtual time, so that it neither catches up nor falls behind.
local function wake(job)
  local about = redis.call('HMGET', jobkey(job), 'state', 'vtime')
  if about[1] ~= 'running' or redis.call('LLEN', jobkey(job, 'pending')) == 0 then return end
  local first = redis.call('ZRANGE', key('fair'), 0, 0, 'WITHSCORES')
  local present = tonumber(first[2] or redis.call('GET', key('vclock')) or 0)
  redis.call('ZADD', key('fair'), 'NX', math.max(tonumber(about[2]) or 0, present), job)
end

-- Move up to n tasks of a job into the window; returns how many there were.
local function pour(job, n)
  for i = 1, n do
    if not redis.call('RPOPLPUSH', jobkey(job, 'pending'), key('ready')) then return i - 1 end
  end
  return n
end

-- Fill the shared window from the jobs, smallest virtual time first; a task costs 1/weight.
-- At most so many in one call, which bounds the time that others wait for it.
local MOST_FED = 128
local function feed()
  local window = tonumber(redis.call('GET', key('window')) or 8) or 8
  local length = redis.call('LLEN', key('ready'))
  if length * 2 > window then return end
  window = math.min(window, length + MOST_FED)
  while length < window do
    local first = redis.call('ZRANGE', key('fair'), 0, 1, 'WITHSCORES')
    local job = first[1]
    if not job then return end
    local about = redis.call('HMGET', jobkey(job), 'state', 'weight')
    local n = 0
    if about[1] == 'running' then n = pour(job, first[3] and 1 or window - length) end
    local vtime = tonumber(first[2]) + n / math.max(tonumber(about[2]) or 1, 0.001)
    if n > 0 and redis.call('EXISTS', jobkey(job, 'pending')) == 1 then
      redis.call('ZADD', key('fair'), vtime, job)
    else
      redis.call('ZREM', key('fair'), job)
    end
    if n > 0 then
      redis.call('HSET', jobkey(job), 'vtime', vtime)
      redis.call('SET', key('vclock'), vtime)
      move(job, 'pending', 'out', n)
    end
    length = length + n
  end
end

-- One token per slot lies ready, within bounds: what lies there is ahead of every newcomer, whatever its
-- weight, and each begin and complete refills it. Called when the fleet changes.
local function resize(least, most)
  local slots = 0
  for _, about in ipairs(redis.call('HVALS', key('fleet'))) do
    slots = slots + (tonumber(string.match(about, '^%d+')) or 1)
  end
  redis.call('SET', key('window'), math.min(math.max(slots, least), most))
end

-- Take a job's tokens out of the window, in one pass over it; returns them.
local function withdraw(job)
  local keep, back, total = {}, {}, total_of(job)
  local ready = redis.call('LRANGE', key('ready'), 0, -1)
  for _, token in ipairs(ready) do
    local owner, task = split(token)
    if owner ~= job then
      keep[#keep + 1] = token
    elseif within(task, total) then
      back[#back + 1] = token
    else
      poison(token)
    end
  end
  redis.call('ZREM', key('fair'), job)
  if #keep < #ready then
    redis.call('DEL', key('ready'))
    for i = 1, #keep, 1000 do
      redis.call('RPUSH', key('ready'), unpack(keep, i, math.min(i + 999, #keep)))
    end
  end
  return back
end

-- Put a task that was out back to the head of the line, under a new epoch: it has waited already.
local function requeue(job, token)
  local runs = redis.call('HGET', jobkey(job), 'state') == 'running'
  if runs then
    redis.call('RPUSH', key('ready'), renew(token))
  else
    redis.call('RPUSH', jobkey(job, 'pending'), renew(token))
    move(job, 'out', 'pending')
  end
end

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
  redis.call('ZADD', key('delayed'), clock() + PUT_OFF, renew(token))
  move(job, 'out', 'delayed')
  feed()
end

-- Forget how often a task went wrong: failures, failures that say little about it, losses.
local function absolve(job, task)
  redis.call('HDEL', jobkey(job, 'tries'), task, task .. '~', task .. '!')
end

-- The epoch is kept with the failure, so that a later retry goes on counting from there.
local function bury(token, failure)
  local job, task, epoch = split(token)
  redis.call('HSET', jobkey(job, 'failed'), task, epoch .. '\t' .. failure)
  redis.call('HDEL', jobkey(job, 'home'), task)
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

-- End a job in which nothing can move any more.  Tasks still held wait for a failed part; its
-- retry brings them along.  A cancelled job ends when its last task left its worker, and one that
-- is complete when its last file is on the NAS.
local function settle(job, now)
  local about = redis.call('HMGET', jobkey(job),
    'state', 'sealed', 'out', 'pending', 'delayed', 'held', 'failed', 'ended_at', 'owed')
  for i = 3, 7 do about[i] = tonumber(about[i]) or 0 end
  if about[8] then return fade(job) end
  if about[3] > 0 then return end
  if about[1] == 'cancelled' then return finish(job, 'cancelled', now) end
  if about[2] ~= '1' or about[4] + about[5] > 0 then return end
  if about[6] + about[7] > 0 then return finish(job, 'failed', now) end
  if (tonumber(about[9]) or 0) <= 0 then return finish(job, 'done', now) end
  redis.call('HSET', jobkey(job), 'state', 'delivering')
  redis.call('ZREM', key('fair'), job)
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
  for _, index in ipairs({'jobs', 'ended', 'fair'}) do redis.call('ZREM', key(index), job) end
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

-- One task was lost with its worker: back into the queue, unless that happened too often.
local function recover(token, now, max_losses)
  local job, task = known(token)
  if not job then return end
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
  settle(job, now)
end

-- Recover up to n tasks from a worker's list; returns how many.
local function sweep(worker, n, now, max_losses)
  for i = 1, n do
    local token = redis.call('RPOP', key('active:' .. worker))
    if not token then return i - 1 end
    untail(token)
    recover(token, now, max_losses)
  end
  return n
end
