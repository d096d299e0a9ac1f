-- Make a job, or find the one that fetches the same thing: listing -> (job runs).
--
-- ARGV[2] -> identity: digest of what is fetched and where to
-- ARGV[3] -> place: digest of repo id and output folder; holds one repo type only
-- ARGV[4] -> repo type
-- ARGV[5] -> spec as JSON
-- ARGV[6] -> endpoint
-- ARGV[7] -> weight in the fair feed
--
-- Returns {job, "created"}, {job, "known"} (spec, endpoint and weight are updated, and the id of the
-- output folder stays known), or
-- {job, "conflict", repo type} with a job that fills the same folder with another repo type.
local identity, place, repo_type = ARGV[2], ARGV[3], ARGV[4]
local now = clock()

local function index(job)
  redis.call('ZADD', key('jobs'), 'NX', now, job)
  redis.call('HSET', key('identities'), identity, job)
  redis.call('HSET', key('names'), job, identity .. ' ' .. place)
  redis.call('ZADD', key('place:' .. place), 'NX', job, job)
end

-- A number that no job has, also where somebody overwrote the last one.
local function next_job()
  local job = redis.pcall('INCR', key('next_job'))
  if type(job) == 'table' or job < 1 or job > 1e12 then
    poison('next_job: ' .. tostring(redis.call('GET', key('next_job'))))
    redis.call('SET', key('next_job'), 0)
    job = redis.call('INCR', key('next_job'))   -- which says so if it was not the value that was wrong
  end
  if redis.call('EXISTS', jobkey(job)) == 1 then return next_job() end
  return tostring(job)
end

-- Files of another commit get the names of those that other jobs have put there, which must not take them
-- back by themselves, also when this job is forgotten: see redo.lua.
local function replace_others(job)
  local function commit_of(spec) return string.match(spec, '"commit":"(%x+)"') end
  redis.call('HDEL', jobkey(job), 'replaced')
  for _, other in ipairs(redis.call('ZRANGE', key('place:' .. place), 0, -1)) do
    local spec = redis.call('HGET', jobkey(other), 'spec')
    if spec and commit_of(spec) ~= commit_of(ARGV[5]) then redis.call('HSET', jobkey(other), 'replaced', job) end
  end
end

local existing = redis.call('HGET', key('identities'), identity)
local named = existing and string.match(redis.call('HGET', key('names'), existing) or '', '^%S+')
if named and named ~= identity then existing = nil end   -- another's, whoever says that it is this one
if existing and (redis.call('EXISTS', jobkey(existing)) == 0 or faded(existing)) then
  erase(existing)
  existing = nil
end
if existing then
  local known_place = string.match(redis.call('HGET', jobkey(existing), 'spec') or '', '"place":"(%x+)"')
  local spec = known_place and string.gsub(ARGV[5], '"place":""', '"place":"' .. known_place .. '"', 1) or ARGV[5]
  redis.call('HSET', jobkey(existing), 'spec', spec, 'endpoint', ARGV[6], 'weight', ARGV[7], 'listed_at', now)
  index(existing)
  replace_others(existing)
  return {existing, 'known'}
end

-- All living jobs of a place have one type, so the first that still exists tells it.
for _, job in ipairs(redis.call('ZRANGE', key('place:' .. place), 0, -1)) do
  local other = redis.call('HGET', jobkey(job), 'type')
  if other and other ~= repo_type then return {job, 'conflict', other} end
  if other then break end
  redis.call('ZREM', key('place:' .. place), job)
end

local job = next_job()
redis.call('HSET', jobkey(job), 'spec', ARGV[5], 'endpoint', ARGV[6], 'weight', ARGV[7], 'type', repo_type,
  'state', 'running', 'sealed', 0, 'digest', '', 'total', 0, 'pending', 0, 'out', 0, 'delayed', 0,
  'held', 0, 'done', 0, 'failed', 0, 'parts', 0, 'parts_done', 0, 'bytes', 0, 'bytes_done', 0,
  'owed', 0, 'delivered', 0, 'bytes_delivered', 0, 'created_at', now, 'listed_at', now)
index(job)
replace_others(job)
return {job, 'created'}
