-- A worker says how much of the fleet's bandwidth it could use, and learns its share. One worker per round, and
-- each that is new, also learns what all of them could use, and works out the shares.
--
-- ARGV[2] -> worker, ARGV[3] -> what it could use, ARGV[4] -> the fleet's limit as it knows it: bytes a second
-- ARGV[5] -> ms of a round
-- ARGV[6] -> ms after which a worker that says nothing more is left out
--
-- Returns {its share as it was published or "", worker, wanted, limit, worker, wanted, limit ...}.
local KEPT = 60000
local now, board, worker = clock(), key('bandwidth'), ARGV[2]
local new = redis.call('HSET', board, worker, table.concat({ARGV[3], ARGV[4], now}, ' '))
redis.call('PEXPIRE', board, KEPT)
local out = {redis.call('HGET', key('shares'), worker) or ''}
local turn = redis.call('SET', key('sharing'), 1, 'NX', 'PX', ARGV[5])
if new == 0 and not turn then return out end
local all = redis.call('HGETALL', board)
for i = 1, #all, 2 do
  local wanted, limit, at = string.match(all[i + 1], '^(%d+) (%d+) (%d+)$')
  if at and number(at) > now - ARGV[6] then
    out[#out + 1], out[#out + 2], out[#out + 3] = all[i], wanted, limit
  else
    redis.call('HDEL', board, all[i])
    redis.call('HDEL', key('shares'), all[i])
  end
end
return out
