-- A worker is alive: extend its lease, unless it was declared dead in the meantime.
--
-- ARGV[2] -> worker
-- ARGV[3] -> lease in ms
-- ARGV[4] -> host
--
-- Returns nil when it was declared dead, else {retries parked for the host, token, state,
-- token, state ...}: what the worker holds, each with the state of its job ("" = job gone).
local worker = ARGV[2]
if not redis.call('ZSCORE', key('workers'), worker) then return false end
redis.call('ZADD', key('workers'), 'XX', clock() + ARGV[3], worker)
local out = {redis.call('ZCARD', key('parked:' .. ARGV[4]))}
for _, token in ipairs(redis.call('LRANGE', key('active:' .. worker), 0, -1)) do
  local job = split(token)
  out[#out + 1] = token
  out[#out + 1] = job and redis.call('HGET', jobkey(job), 'state') or ''
end
return out
