-- A worker starts on the token it claimed: ready -> active was BRPOPLPUSH, this checks it.
--
-- ARGV[2] -> worker
-- ARGV[3] -> token
--
-- Returns what `begun` does (_start.lua), or nil: the token is not in the worker's list, or was dropped or given back.
local worker, token = ARGV[2], ARGV[3]

if not holds(worker, token) then return false end
feed()
return begun(worker, token)
