-- A worker says how far its parts are, and learns where they end: others may have taken their tails.
--
-- ARGV[2] -> worker
-- ARGV[3...] -> token, bytes that are there, bytes a second (0 = stalled, 1 = not known yet); token, bytes ...
--
-- Returns {token, length, token, length ...} of the parts that it still has in hand.
local worker, now, out, mine = ARGV[2], clock(), {}, {}
for _, token in ipairs(redis.call('LRANGE', key('active:' .. worker), 0, -1)) do mine[token] = true end
for i = 3, #ARGV, 3 do
  local token, done, rate = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  local job, task = split(token)
  local line = job and mine[token] and redis.call('HGET', jobkey(job, 'tasks'), task)
  local _, length = part_of(line or '')
  if length then
    sees(worker, job)
    redis.call('ZADD', key('tails'), ms_for(math.max(length - done, 0), rate), token)
    redis.call('HSET', key('progress'), token, table.concat({worker, ARGV[i + 1], ARGV[i + 2], now, now}, ' '))
    out[#out + 1] = token
    out[#out + 1] = tonumber(length)
  end
end
return out
