-- A worker is alive: extend its lease, unless it was declared dead in the meantime.
--
-- ARGV[2] -> worker
-- ARGV[3] -> lease in ms
-- ARGV[4] -> host
-- ARGV[5] -> ms by which the lease may be longer, unless there are parts or retries, which only a beat finds
--
-- Returns nil when it was declared dead, else {retries parked for the host, workers that live, parts in workers'
-- hands, ms by which the lease is longer, whether somebody has just kept house, token, state, token, state ...}: what
-- the worker holds, each with the state of its job ("" = job gone).
local worker = ARGV[2]
if not redis.call('ZSCORE', key('workers'), worker) then return false end
-- What it says of itself lasts as long as it lives. This comes first, for it needs no memory, and a script that has
-- written may go on in a Redis that is full: nobody shall lose a lease to that.
redis.call('PEXPIRE', key('worker:' .. worker), 3 * ARGV[3])
local stirs = redis.call('EXISTS', key('tails'), key('delayed'), key('parked')) > 0
local longer = stirs and 0 or tonumber(ARGV[5])
redis.call('ZADD', key('workers'), 'XX', clock() + ARGV[3] + longer, worker)
local workers = redis.call('ZCOUNT', key('workers'), clock(), '+inf')
local parked, tails = redis.call('ZCARD', key('parked:' .. ARGV[4])), redis.call('ZCARD', key('tails'))
local out = {parked, workers, tails, longer, redis.call('EXISTS', key('tick'))}
for _, token in ipairs(redis.call('LRANGE', key('active:' .. worker), 0, -1)) do
  local job = split(token)
  out[#out + 1] = token
  out[#out + 1] = job and redis.call('HGET', jobkey(job), 'state') or ''
end
return out
