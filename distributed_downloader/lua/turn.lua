-- Whose turn is it to write down how far the jobs of a folder are?
--
-- ARGV[2] -> digest of the folder
-- ARGV[3] -> ms for which nobody else gets the turn
--
-- Returns 1 it is ours, 0 somebody else had it a moment ago.
return redis.call('SET', key('turn:' .. ARGV[2]), 1, 'NX', 'PX', ARGV[3]) and 1 or 0
