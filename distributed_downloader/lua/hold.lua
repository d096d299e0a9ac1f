-- The hub asked for a pause: the whole fleet keeps away from it for the longest that was asked.
--
-- ARGV[2] -> endpoint
-- ARGV[3] -> ms
--
-- Returns 1, or 0 if a longer pause is already on.
local hold = key('hold:' .. ARGV[2])
if redis.call('PTTL', hold) >= tonumber(ARGV[3]) then return 0 end
redis.call('SET', hold, 1, 'PX', ARGV[3])
return 1
