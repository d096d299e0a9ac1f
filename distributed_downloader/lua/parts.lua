-- What the preparer of a seal wants to know; changes nothing.
--
-- ARGV[2] -> worker
-- ARGV[3] -> job
-- ARGV[4] -> task of the seal
-- ARGV[5] -> how many reports of finished parts it knows already
-- ARGV[6] -> most reports in one answer
--
-- Returns {state of the job, parts still missing, token of the seal if this worker has it or "",
-- report, report ...}, or nil when the seal is done, has failed, or is gone.
local worker, job, seal, known_reports, most = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local state = redis.call('HGET', jobkey(job), 'state')
if not state or redis.call('GETBIT', jobkey(job, 'done'), seal) == 1
  or redis.call('HEXISTS', jobkey(job, 'failed'), seal) == 1 then return false end

local token, prefix = '', job .. '.' .. seal .. '.'
for _, held in ipairs(redis.call('LRANGE', key('active:' .. worker), 0, -1)) do
  if string.sub(held, 1, #prefix) == prefix and split(held) then token = held end
end
local out = {state, tonumber(redis.call('HGET', jobkey(job, 'held'), seal) or '') or 0, token}
local reports = tonumber(redis.call('HGET', jobkey(job, 'records'), seal) or '') or 0
for i = known_reports, math.min(reports, known_reports + most) - 1 do
  out[#out + 1] = redis.call('HGET', jobkey(job, 'records'), seal .. '.' .. i) or ''
end
return out
