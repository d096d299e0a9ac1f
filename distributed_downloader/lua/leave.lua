-- A worker leaves the fleet and gives back all it holds: active -> pending, no penalty.
--
-- ARGV[2] -> worker
-- ARGV[3] -> batch
-- ARGV[4], ARGV[5] -> least and most tokens in the window
--
-- Returns how many tasks it still holds; call again until that is 0.
local worker, now = ARGV[2], clock()
for _ = 1, tonumber(ARGV[3]) do
  local token = redis.call('RPOP', key('active:' .. worker))
  if not token then break end
  untail(token)
  local job = known(token)
  if job then
    requeue(job, token)
    settle(job, now)
  end
end
local left = redis.call('LLEN', key('active:' .. worker))
if left == 0 then
  strike(worker, now)
  resize(tonumber(ARGV[4]), tonumber(ARGV[5]))
end
feed()
return left
