-- A file has got from a folder to the NAS; its job may end with that.
--
-- ARGV[2] -> id of the folder
-- ARGV[3] -> token of the file
--
-- Returns 1 counted, 0 not owed (any more): nothing is touched.
if redis.call('ZREM', key('owed:' .. ARGV[2]), ARGV[3]) == 0 then return 0 end
local job, task = split(ARGV[3])
if redis.call('EXISTS', jobkey(job)) == 0 then return 0 end
local line = redis.call('HGET', jobkey(job, 'tasks'), task) or ''
add(jobkey(job), 'owed', -1)
add(jobkey(job), 'delivered', 1)
add(jobkey(job), 'bytes_delivered', string.match(line, '^(%d+)\t') or 0)
settle(job, clock())
return 1
