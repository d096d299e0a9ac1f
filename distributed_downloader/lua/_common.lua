-- Shared by every script, prepended when it is loaded.
--
-- KEYS[1] -> the namespace, e.g. "{hfd}:"; its hash tag keeps all keys in one Cluster slot
-- ARGV[1] -> the time in ms, or "" for the server's own clock (tests bring theirs)
--
-- A token is "<job>.<task>.<epoch>".  The epoch grows whenever the task goes back into a
-- queue, so a token is handed to a worker at most once in its life: it is the fence.  It is the time at
-- which the token was made, so a Redis that lost its data makes no token again that it made before.

local DAY = 24 * 3600 * 1000
local POISON_KEPT = 100

local NAMESPACE = KEYS[1]
local function key(name) return NAMESPACE .. name end

local function jobkey(job, part)
  if part and part ~= '' then return NAMESPACE .. 'job:' .. job .. ':' .. part end
  return NAMESPACE .. 'job:' .. job
end

local moment = tonumber(ARGV[1])
local function clock()   -- one moment for the whole script
  if not moment then
    local t = redis.call('TIME')
    moment = t[1] * 1000 + math.floor(t[2] / 1000)
  end
  return moment
end

local function poison(what)   -- what does not belong here, for a person to look at
  redis.call('LPUSH', key('poison'), what)
  redis.call('LTRIM', key('poison'), 0, POISON_KEPT - 1)
end

-- A number as it lies in Redis, 0 if it is none: "nan" and "inf" would pass for numbers.
local function number(text)
  local n = tonumber(text or '')
  return n and math.abs(n) < 1e300 and n or 0
end

local function split(token)
  if #token > 48 then return nil end
  return string.match(token, '^(%d+)%.(%d+)%.(%d+)$')
end

local function total_of(job) return redis.call('HGET', jobkey(job), 'total') end

-- Whether a job is the one with this identity, as far as that is known.
local function is_that(job, identity)
  return identity == '' or string.match(redis.call('HGET', key('names'), job) or '', '^%S+') == identity
end

-- Of more tasks than MOST no job can keep a bit each.
local MOST = 2 ^ 28
local function within(task, total)
  return not string.match(task, '^0%d') and tonumber(task) < math.min(tonumber(total) or 0, MOST)
end

-- What `known` has asked, by job: one script meets many tokens of few jobs.
local totals = {}

-- Job and task of a token that was just taken out of a queue, or nil if it is to be dropped:
-- the job was forgotten, or it is no token of ours at all.
local function known(token)
  local job, task = split(token)
  local total = job and (totals[job] or total_of(job))
  if job and not total then return nil end
  if job then totals[job] = total end
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

-- A script that fails keeps what it has written, so keys of a wrong type are met before anything is. Nobody else
-- changes them while it runs, so once is enough.
local probed = false
local function probe()
  if probed then return end
  probed = true
  for _, name in ipairs({'tails', 'fair', 'delayed'}) do redis.call('ZCARD', key(name)) end
  for _, name in ipairs({'progress', 'folders', 'splitting'}) do redis.call('HLEN', key(name)) end
  redis.call('LLEN', key('ready'))
end

-- Take a token out of a worker's hands; false if it is not there.
local function take(worker, token)
  probe()
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

-- A new token of a task; `epoch` is that of the one before, if there was one.
local function mint(job, task, epoch)
  return string.format('%s.%s.%.0f', job, task, math.max((epoch or -1) + 1, clock()))
end

local function renew(token) return mint(split(token)) end

-- Add to a number in a hash; one that somebody overwrote with text must not stop the fleet.
local function add(hash, field, n)
  local reply = redis.pcall('HINCRBY', hash, field, n)
  if type(reply) ~= 'table' then return reply end
  if not (string.find(reply.err, 'not an integer') or string.find(reply.err, 'overflow')) then
    return redis.call('HINCRBY', hash, field, n)   -- the memory is full, say: the script ends with that error
  end
  poison(hash .. ' ' .. field .. ': ' .. tostring(redis.call('HGET', hash, field)))
  redis.call('HSET', hash, field, n)
  return n
end

local function move(job, from, to, n)   -- returns how many are left where they were
  if n == 0 then return nil end
  add(jobkey(job), to, n or 1)
  return add(jobkey(job), from, -(n or 1))
end

-- Let a job take part in the feed, if it runs and has something to feed.  Who comes (back)
-- starts at the present virtual time, so that it neither catches up nor falls behind.
local function wake(job)
  local about = redis.call('HMGET', jobkey(job), 'state', 'vtime')
  if redis.call('ZSCORE', key('asleep'), job) then return end
  if about[1] ~= 'running' or redis.call('LLEN', jobkey(job, 'pending')) == 0 then return end
  local first = redis.call('ZRANGE', key('fair'), 0, 0, 'WITHSCORES')
  local present = number(first[2] or redis.call('GET', key('vclock')))
  redis.call('ZADD', key('fair'), 'NX', math.max(number(about[2]), present), job)
end

-- Jobs in their turn, as `fair` has them: a heap, which is one again after its first element has changed.
local function sink(turns)
  local function before(one, other)
    return one.vtime < other.vtime or one.vtime == other.vtime and one.job < other.job
  end
  local at, first, size = 1, turns[1], #turns
  while 2 * at <= size do
    local child = 2 * at
    if child < size and before(turns[child + 1], turns[child]) then child = child + 1 end
    if before(first, turns[child]) then break end
    turns[at], at = turns[child], child
  end
  turns[at] = first
end

-- Move one task of the job whose turn it is into the window; false if it has none, or does not run.
local function pour(turn)
  if not turn.weight then
    local about = redis.call('HMGET', jobkey(turn.job), 'state', 'weight')
    turn.runs, turn.weight = about[1] == 'running', math.min(math.max(number(about[2]), 1), 1000)
    turn.pending = jobkey(turn.job, 'pending')
  end
  if not turn.runs or not redis.call('RPOPLPUSH', turn.pending, key('ready')) then return false end
  turn.n, turn.vtime = turn.n + 1, turn.vtime + 1 / turn.weight
  return true
end

-- Write down what was poured of a job, and when it is its turn again.
local function poured(turn)
  if turn.n > 0 and redis.call('EXISTS', turn.pending) == 1 then
    redis.call('ZADD', key('fair'), turn.vtime, turn.job)
  else
    redis.call('ZREM', key('fair'), turn.job)
  end
  if turn.n > 0 then
    redis.call('HSET', jobkey(turn.job), 'vtime', turn.vtime)
    move(turn.job, 'pending', 'out', turn.n)
  end
end

-- Fill the shared window from the jobs, smallest virtual time first; a task costs 1/weight.
-- At most so many in one call, which bounds the time that others wait for it.
local MOST_FED = 128
local function feed()
  local window = number(redis.call('GET', key('window')))
  if window < 1 then window = 8 end
  local length = redis.call('LLEN', key('ready'))
  if length * 2 > window then return end
  local n, fed, all, turns = math.min(window - length, MOST_FED), 0, {}, {}
  local found = redis.call('ZRANGE', key('fair'), 0, n - 1, 'WITHSCORES')
  for i = 1, #found, 2 do
    all[#all + 1] = {job = found[i], vtime = number(found[i + 1]), n = 0}
    turns[#turns + 1] = all[#all]
  end
  local vclock
  local whole, problem = pcall(function()
    while fed < n and turns[1] do
      if pour(turns[1]) then
        fed, vclock = fed + 1, turns[1].vtime
      else
        local last = table.remove(turns)
        if turns[1] then turns[1] = last end
      end
      if turns[2] then sink(turns) end
    end
  end)
  for _, turn in ipairs(all) do
    if turn.weight then poured(turn) end
  end
  if not whole then error(problem, 0) end
  if vclock then redis.call('SET', key('vclock'), vclock) end
  if fed == 0 and #all > 0 then feed() end   -- these had nothing, and are out of the way now
end

-- How many slots the fleet has.
local function slots()
  local sum = 0
  for _, about in ipairs(redis.call('HVALS', key('fleet'))) do
    sum = sum + (tonumber(string.match(about, '^%d+')) or 1)
  end
  return sum
end

-- One token per slot lies ready, within bounds: what lies there is ahead of every newcomer, whatever its
-- weight, and each begin and complete refills it. Called when the fleet changes.
local function resize(least, most)
  redis.call('SET', key('window'), math.min(math.max(slots(), least), most))
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

-- Take a job's tokens back from the window.  They keep their epoch: they were in nobody's hands.
local function recall(job)
  local back = withdraw(job)
  for i = 1, #back, 1000 do
    redis.call('RPUSH', jobkey(job, 'pending'), unpack(back, i, math.min(i + 999, #back)))
  end
  move(job, 'out', 'pending', #back)
end

local function rouse(job)
  if redis.call('ZREM', key('asleep'), job) == 1 then wake(job) end
end

-- A worker sees the folder of a job after all.
local function sees(worker, job)
  if redis.call('HDEL', jobkey(job, 'blind'), worker) == 0 then return end
  rouse(job)
  feed()
end

-- Put a task that was out back to the head of the line, under a new epoch: it has waited already.
local function requeue(job, token)
  local runs = redis.call('HGET', jobkey(job), 'state') == 'running'
  if runs and not redis.call('ZSCORE', key('asleep'), job) then
    redis.call('RPUSH', key('ready'), renew(token))
  else
    redis.call('RPUSH', jobkey(job, 'pending'), renew(token))
    move(job, 'out', 'pending')
  end
end
