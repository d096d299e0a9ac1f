-- A claimed file is fetched in parts: active -> held, and its parts come into being: -> pending.
--
-- ARGV[2] -> worker
-- ARGV[3] -> token
-- ARGV[4] -> id of the folder in which the parts are put together
-- ARGV[5] -> ranges that were written before, or ""
-- ARGV[6] -> name for the file and its folder, which one job at a time puts together; "" = no other does
-- ARGV[7...] -> first byte, length, first byte, length ... of what is missing; the rest is there
--
-- Returns 1, 2 if another job is at the file (the task comes back later), or 0 stale: not in the
-- worker's list, nothing is touched.  Without any part the file waits for nothing, and is sealed next.
local worker, token, place, file = ARGV[2], ARGV[3], ARGV[4], ARGV[6]
if not take(worker, token) then return 0 end
local job, task = known(token)
if not job then return 0 end
if not own(file, job, task) then
  put_off(job, token)
  return 2
end
redis.call('HDEL', jobkey(job, 'why'), task)
local line = redis.call('HGET', jobkey(job, 'tasks'), task) or ''
local first, count, missing = tonumber(total_of(job)), (#ARGV - 6) / 2, 0

-- The first part is taken first, and parts before all that waits: what is begun is to end.
for i = count, 1, -1 do
  local start, length = ARGV[5 + 2 * i], ARGV[6 + 2 * i]
  local words = {line, 'part=' .. start .. '+' .. length, 'seal=' .. task, 'place=' .. place}
  redis.call('HSET', jobkey(job, 'tasks'), first + i - 1, table.concat(words, '\t'))
  redis.call('RPUSH', jobkey(job, 'pending'), mint(job, first + i - 1))
  missing = missing + length
end
add(jobkey(job), 'total', count)
add(jobkey(job), 'parts', count)
add(jobkey(job), 'pending', count)

local there = tonumber(string.match(line, '^(%d+)\t') or missing) - missing
local _, _, epoch = split(renew(token))
redis.call('HSET', jobkey(job, 'tasks'), task, line .. '\tplace=' .. place)
redis.call('HSET', jobkey(job, 'seals'), task, table.concat({epoch, there, file}, ' '))
if ARGV[5] ~= '' then redis.call('HSET', jobkey(job, 'records'), task, 1, task .. '.0', ARGV[5]) end
add(jobkey(job), 'bytes_done', there)
if count == 0 then
  requeue(job, token)
else
  redis.call('HSET', jobkey(job, 'held'), task, count)
  move(job, 'out', 'held')
  wake(job)
end
feed()
settle(job, clock())
return 1
