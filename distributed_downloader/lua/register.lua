-- A worker joins the fleet.  Tasks of an earlier life under the same name were lost with it.
--
-- ARGV[2] -> worker
-- ARGV[3] -> incarnation: tells one process from another of the same name
-- ARGV[4] -> slots
-- ARGV[5] -> lease in ms
-- ARGV[6] -> batch
-- ARGV[7] -> max losses
-- ARGV[8], ARGV[9] -> least and most tokens in the window
-- ARGV[10], ARGV[11] -> ids of its own output folder and of the NAS as it sees it, or "-"
--
-- Returns how many workers live, "again" if more than a batch is to be recovered first, or, when the name is
-- held by another living process, {that process's incarnation, ms that its lease lasts}.
local worker, incarnation, now = ARGV[2], ARGV[3], clock()
local lease = tonumber(redis.call('ZSCORE', key('workers'), worker) or 0)
local holder = string.match(redis.call('HGET', key('fleet'), worker) or '', '^%d+ %S+ %S+ (.*)$')

if lease >= now and holder ~= incarnation then return {holder or '?', lease - now} end
if lease < now then
  strike(worker, now)
  local batch = tonumber(ARGV[6])
  if sweep(worker, batch, now, tonumber(ARGV[7])) == batch then
    feed()
    return 'again'
  end
end
redis.call('ZREM', key('dead'), worker)
redis.call('ZADD', key('workers'), now + ARGV[5], worker)
redis.call('HSET', key('fleet'), worker, table.concat({ARGV[4], ARGV[10], ARGV[11], incarnation}, ' '))
local most = tonumber(ARGV[9])
if number(redis.call('GET', key('window'))) < most then resize(tonumber(ARGV[8]), most) end
for _, job in ipairs(redis.call('ZRANGE', key('asleep'), 0, -1)) do   -- it may see what nobody has seen
  redis.call('HDEL', jobkey(job, 'blind'), worker)
  rouse(job)
end
feed()
return redis.call('ZCARD', key('workers'))
