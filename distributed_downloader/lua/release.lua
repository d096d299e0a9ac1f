-- A worker gives tasks back that it did not finish: active -> pending, no penalty.
--
-- ARGV[2] -> worker
-- ARGV[3...] -> tokens
--
-- Returns how many were still in the worker's list; nothing else is touched.
local worker, now, n = ARGV[2], clock(), 0
for i = 3, #ARGV do
  if take(worker, ARGV[i]) then
    local job = known(ARGV[i])
    if job then
      requeue(job, ARGV[i])
      settle(job, now)
    end
    n = n + 1
  end
end
if n > 0 then feed() end
return n
