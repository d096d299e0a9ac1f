-- Keep house: reap dead workers, promote due retries, open parked ones, rouse sleeping jobs, purge old jobs, feed.
-- Anybody may call it; the lock lets one caller per interval do the work.
--
-- ARGV[2] -> interval in ms, 0 = without lock
-- ARGV[3] -> max losses
-- ARGV[4] -> batch: no more tasks than this are moved, all stages together
-- ARGV[5], ARGV[6] -> least and most tokens in the window
--
-- Returns how many tasks were moved, or -1 if somebody else keeps house.
local interval, max_losses, batch = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
if interval ~= '0' and not redis.call('SET', key('tick'), 1, 'NX', 'PX', interval) then
  local left = redis.call('PTTL', key('tick'))
  if left >= 0 and left <= tonumber(interval) then return -1 end   -- else it is not one of ours
  redis.call('SET', key('tick'), 1, 'PX', interval)
end
local now, budget = clock(), batch
local HOUR, PURGED, STRUCK, SEARCHED = 3600000, 10, 100, 100
-- Whether the window may be of a wrong size: somebody died; or it was long ago that anybody looked, and it is lost.
local resizes = false

-- active -> pending | failed.  A worker is declared dead as a whole, before its tasks are moved:
-- it cannot come back in between.
local function reap()
  for _, worker in ipairs(redis.call('ZRANGEBYSCORE', key('workers'), '-inf', '(' .. now, 'LIMIT', 0, STRUCK)) do
    strike(worker, now)
    resizes = true
  end
  local dead = redis.call('ZRANGE', key('dead'), 0, -1, 'WITHSCORES')
  for i = 1, #dead, 2 do
    budget = budget - sweep(dead[i], budget, now, max_losses)
    if tonumber(dead[i + 1]) < now - HOUR and redis.call('EXISTS', key('active:' .. dead[i])) == 0 then
      redis.call('ZREM', key('dead'), dead[i])
    end
  end
end

-- A Redis that lost its data may have lost who its workers are, and these claim until they notice. Some of
-- the keys are looked through at a time, for lists of workers that are neither living nor dead.
local function search()
  local cursor = string.match(redis.call('GET', key('search')) or '', '^%d+$') or '0'
  local page, prefix = redis.call('SCAN', cursor, 'MATCH', '*active:*', 'COUNT', SEARCHED), key('active:')
  if page[1] == '0' then
    redis.call('DEL', key('search'))
    resizes = true   -- all of the fleet is gone through, and as rarely as all keys are
  else
    redis.call('SET', key('search'), page[1])
  end
  for _, name in ipairs(page[2]) do
    local worker = string.sub(name, #prefix + 1)
    local ours = string.sub(name, 1, #prefix) == prefix
    if ours and not redis.call('ZSCORE', key('workers'), worker) then strike(worker, now) end
  end
end

local function due(zset)
  local tokens = redis.call('ZRANGEBYSCORE', key(zset), '-inf', now, 'LIMIT', 0, budget)
  budget = budget - #tokens
  return tokens
end

-- delayed -> parked | pending
local function promote()
  for _, token in ipairs(due('delayed')) do
    redis.call('ZREM', key('delayed'), token)
    local job, task = known(token)
    if job then
      local ms, host = string.match(redis.call('HGET', jobkey(job, 'home'), task) or '', '^(%d+) (.*)$')
      move(job, 'delayed', 'pending')
      if host then
        redis.call('HDEL', jobkey(job, 'home'), task)
        redis.call('ZADD', key('parked:' .. host), now + ms, token)
        redis.call('SADD', key('parked'), host)
      else
        redis.call('LPUSH', jobkey(job, 'pending'), token)
        wake(job)
      end
    end
  end
end

-- parked -> pending: nobody at home took it in time
local function open()
  for _, host in ipairs(redis.call('SMEMBERS', key('parked'))) do
    for _, token in ipairs(due('parked:' .. host)) do
      redis.call('ZREM', key('parked:' .. host), token)
      local job = known(token)
      if job then
        redis.call('RPUSH', jobkey(job, 'pending'), token)
        wake(job)
      end
    end
    if redis.call('EXISTS', key('parked:' .. host)) == 0 then redis.call('SREM', key('parked'), host) end
  end
end

search()
reap()
promote()
open()
for _, job in ipairs(redis.call('ZRANGEBYSCORE', key('asleep'), '-inf', now)) do rouse(job) end
for _, job in ipairs(redis.call('ZRANGEBYSCORE', key('ended'), '-inf', now, 'LIMIT', 0, PURGED)) do erase(job) end
if resizes then resize(tonumber(ARGV[5]), tonumber(ARGV[6])) end
feed()
return batch - budget
