-- Add one chunk of the listing to a job: listing -> pending | held.
--
-- ARGV[2] -> job
-- ARGV[3] -> base: how many tasks the job has before this chunk (compare-and-set, so that a
--            chunk that is sent again after a lost reply changes nothing)
-- ARGV[4] -> bytes of this chunk
-- ARGV[5] -> digest of the listing up to and including this chunk
-- ARGV[6...] -> kind, descriptor, kind, descriptor ...
--            kind "q": queue now; a number: hold until that many parts are done
--
-- Returns 1, or 0 if nothing was taken: the chunk is already there, the listing is complete,
-- or the job is gone.
local job, base = ARGV[2], tonumber(ARGV[3])
local about = redis.call('HMGET', jobkey(job), 'total', 'sealed')
if tonumber(about[1] or -1) ~= base or about[2] == '1' then return 0 end

local lines, tokens, held, n = {}, {}, {}, base
for i = 6, #ARGV, 2 do
  lines[#lines + 1] = n
  lines[#lines + 1] = ARGV[i + 1]
  if ARGV[i] == 'q' then
    tokens[#tokens + 1] = job .. '.' .. n .. '.0'
  else
    held[#held + 1] = n
    held[#held + 1] = ARGV[i]
  end
  n = n + 1
end
if #lines > 0 then redis.call('HSET', jobkey(job, 'tasks'), unpack(lines)) end
if #tokens > 0 then redis.call('LPUSH', jobkey(job, 'pending'), unpack(tokens)) end
if #held > 0 then redis.call('HSET', jobkey(job, 'held'), unpack(held)) end
redis.call('HSET', jobkey(job), 'digest', ARGV[5], 'listed_at', clock())
add(jobkey(job), 'total', n - base)
add(jobkey(job), 'pending', #tokens)
add(jobkey(job), 'held', #held / 2)
add(jobkey(job), 'bytes', ARGV[4])
wake(job)
feed()
return 1
