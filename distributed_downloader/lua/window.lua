-- How many tasks of each job lie ready, for `status`; only reads.
--
-- Returns {job, tasks, job, tasks ...}.
local count, out = {}, {}
for _, token in ipairs(redis.call('LRANGE', key('ready'), 0, -1)) do
  local job = string.match(token, '^(%d+)%.') or ''
  count[job] = (count[job] or 0) + 1
end
for job, n in pairs(count) do
  out[#out + 1] = job
  out[#out + 1] = n
end
return out
