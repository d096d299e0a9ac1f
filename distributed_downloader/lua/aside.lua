-- Put aside a key that somebody overwrote with another type: every script that needs it would fail for ever.
--
-- ARGV[2] -> key, as it is called in Redis
-- ARGV[3] -> the type that it should have
--
-- Returns 1, or 0 if it is as it should be by now.
local name, type = ARGV[2], ARGV[3]
local found = redis.call('TYPE', name).ok
if found == type or found == 'none' then return 0 end
redis.call('UNLINK', name)
if name ~= key('poison') then poison(name .. ': a ' .. found .. ', and should be a ' .. type) end
if name == key('fair') then   -- or nothing would be fed that waits now
  for _, job in ipairs(redis.pcall('ZRANGE', key('jobs'), 0, -1)) do pcall(wake, job) end
end
return 1
