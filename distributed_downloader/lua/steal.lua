-- An idle worker takes the tail of the part that has the most left: active -> active, under a task
-- of its own.  From a worker that was silent for a while it takes the part as a whole.
--
-- ARGV[2] -> worker
-- ARGV[3] -> bytes a second that it may expect, 0 = unknown
-- ARGV[4] -> ms of silence after which a part is taken as a whole
-- ARGV[5] -> least bytes that are worth it; from the worker's own parts that move, 128 times that
--
-- Returns {token or "", parts under way}.
local worker, speed, silence, least = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local now = clock()
local BLOCK, LOOKED_AT, WORTH_MS, LATE_MS, TAKEN_WHOLE, BLIND_MS = 65536, 16, 300, 300, 3, 60000

feed()
local count = redis.call('ZCARD', key('tails'))
local idle = count > 0 and redis.call('LLEN', key('ready')) == 0 and redis.call('ZSCORE', key('workers'), worker)
local tails = redis.call('ZREVRANGE', key('tails'), 0, LOOKED_AT - 1)

-- Whether this worker gave a task of the job back a moment ago, as none for it; after that, it may try.
local function blind(job)
  local at = string.match(redis.call('HGET', jobkey(job, 'blind'), worker) or '', '^%d+')
  return at and now - at < BLIND_MS
end

-- How far a part is, as far as anybody knows; nil if nobody may take from it.
local function present(token)
  local owner, done, rate, at, heard =
    string.match(redis.call('HGET', key('progress'), token) or '', '^(%S+) (%d+) (%d+) (%d+) (%d+)$')
  local job, task = split(token)
  if not owner or not job or not holds(owner, token) then return untail(token) end
  if redis.call('HGET', jobkey(job), 'state') ~= 'running' or not within(task, total_of(job)) then return nil end
  if redis.call('ZSCORE', key('asleep'), job) then return nil end
  if blind(job) then return nil end
  return {owner = owner, done = tonumber(done), rate = tonumber(rate), since = math.max(now - at, 0), heard = tonumber(heard)}
end

-- Bytes that a part of that length has by now, and bytes a second. Of one that should be complete for a
-- while and is not, nobody knows more than it said last: its connection may hang.
local function reckon(part, length)
  local done, rate, since = math.min(part.done, length), part.rate, part.since
  local left = length - done
  if rate > 1 and left > 0 and since > left * 1000 / rate + LATE_MS then
    return done, math.max(math.floor(left * 1000 / since), 2)
  end
  return math.min(math.floor(done + rate * since / 1000), length), rate
end

-- Bytes a second of a part under way, on average; nil if nobody knows any.
local function typical()
  local sum, n = 0, 0
  for _, about in ipairs(redis.call('HMGET', key('progress'), unpack(tails))) do
    local rate = tonumber(string.match(about or '', '^%S+ %d+ (%d+)') or 0)
    if rate > 1 then sum, n = sum + rate, n + 1 end
  end
  return n > 0 and sum / n or nil
end

-- Counted as a loss: it may be this part that silences its workers.
local function take_whole(owner, token)
  local job, task = split(token)
  if (tonumber(redis.call('HGET', jobkey(job, 'tries'), task .. '!')) or 0) >= TAKEN_WHOLE then return nil end
  add(jobkey(job, 'tries'), task .. '!', 1)
  take(owner, token)
  local mine = renew(token)
  redis.call('LPUSH', key('active:' .. worker), mine)
  return mine
end

local function expect(token, owner, done, rate, left, heard)
  redis.call('ZADD', key('tails'), ms_for(left, rate), token)
  redis.call('HSET', key('progress'), token, table.concat({owner, done, rate, now, heard}, ' '))
end

-- The byte from which on the tail goes to us, so that both end at the same time; whose speed is not known
-- is taken to be as fast as the others. Of the two borders of blocks around it that at which all is there
-- first: for a slow owner even the rest of a block takes long, so it may be one that it has passed, and we
-- fetch a little again. Of a part that has stalled only what is there stays, or a block if nothing is. Nil
-- if nothing is won.
local function cut(start, length, position, rate)
  local here, stop = start + position, start + length
  if rate == 0 then return math.max(math.floor(here / BLOCK) * BLOCK, start + BLOCK) end
  local usual = (rate == 1 or speed == 0) and typical()
  local pace = rate > 1 and rate or usual or math.max(speed, 1)
  local ours = speed > 0 and speed or usual or pace
  local function ends(middle) return math.max((middle - here) / pace, (stop - middle) / ours) end
  local before = math.floor((here + (stop - here) * pace / (pace + ours)) / BLOCK) * BLOCK
  local middle = before + BLOCK
  if before > start and ends(before) <= ends(middle) then middle = before end
  return ends(middle) < (stop - here) / pace and middle or nil
end

local function take_tail(token, part)
  local owner = part.owner
  local job, task = split(token)
  local line = redis.call('HGET', jobkey(job, 'tasks'), task) or ''
  local start, length, seal = part_of(line)
  if not start or redis.call('HEXISTS', jobkey(job, 'held'), seal) == 0 then return nil end
  start, length = tonumber(start), tonumber(length)
  local position, rate = reckon(part, length)
  local left = length - position
  if left == 0 or left * 1000 < WORTH_MS * rate or (owner == worker and rate > 0 and left < 128 * least) then return nil end
  local middle = cut(start, length, position, rate)
  local mine = middle and start + length - middle or 0
  if mine < (rate == 0 and 1 or least) then return nil end

  local n = total_of(job)
  local function describe(first, bytes)
    return (string.gsub(line, '\tpart=%d+%+%d+\t', string.format('\tpart=%.0f+%.0f\t', first, bytes), 1))
  end
  redis.call('HSET', jobkey(job, 'tasks'), task, describe(start, middle - start), n, describe(middle, mine))
  add(jobkey(job, 'held'), seal, 1)
  for _, counter in ipairs({'total', 'parts', 'out'}) do add(jobkey(job), counter, 1) end
  local token_of_tail = mint(job, n)
  redis.call('LPUSH', key('active:' .. worker), token_of_tail)
  expect(token, owner, position, rate, math.max(middle - start - position, 0), part.heard)
  expect(token_of_tail, worker, 0, math.max(math.floor(speed), 1), mine, now)   -- 0 would be stalled
  return token_of_tail
end

local function try(token)
  local part = present(token)
  if not part then return nil end
  if now - part.heard >= silence and part.owner ~= worker then return take_whole(part.owner, token) end
  return take_tail(token, part)
end

if idle then
  for _, token in ipairs(tails) do
    local found = try(token)
    if found then return {found, count} end
  end
end
return {'', count}
