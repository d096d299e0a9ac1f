-- Keep files that are owed to the NAS from others for a while: they are being copied, or wait.
--
-- ARGV[2] -> id of the folder
-- ARGV[3] -> ms
-- ARGV[4...] -> tokens of the files
--
-- Returns 1.
local due = clock() + ARGV[3]
for i = 4, #ARGV do redis.call('ZADD', key('owed:' .. ARGV[2]), 'XX', due, ARGV[i]) end
return 1
