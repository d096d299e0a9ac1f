-- A worker is alive: extend its lease, unless it was declared dead in the meantime.
--
-- ARGV[2] -> worker
-- ARGV[3] -> lease in ms
-- ARGV[4] -> host
--
-- Returns nil when it was declared dead, else {retries parked for the host, workers that live, parts in workers'
-- hands, token, state, token, state ...}: what the worker holds, each with the state of its job ("" = job gone).
local worker = ARGV[2]
if not redis.call('ZSCORE', key('workers'), worker) then return false end
-- What it says of itself lasts as long as it lives. This comes first, for it needs no memory, and a script that has
-- written may go on in a Redis that is full: nobody shall lose a lease to that.
redis.call('PEXPIRE', key('worker:' .. worker), 3 * ARGV[3])
redis.call('ZADD', key('workers'), 'XX', clock() + ARGV[3], worker)
local workers = redis.call('ZCOUNT', key('workers'), clock(), '+inf')
local out = {redis.call('ZCARD', key('parked:' .. ARGV[4])), workers, redis.call('ZCARD', key('tails'))}
for _, token in ipairs(redis.call('LRANGE', key('active:' .. worker), 0, -1)) do
  local job = split(token)
  out[#out + 1] = token
  out[#out + 1] = job and redis.call('HGET', jobkey(job), 'state') or ''
end
return out
