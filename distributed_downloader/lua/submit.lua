-- Add one chunk of the listing to a job: listing -> pending.
--
-- ARGV[2] -> job
-- ARGV[3] -> base: how many files the job has before this chunk (compare-and-set, so that a
--            chunk that is sent again after a lost reply changes nothing)
-- ARGV[4] -> bytes of this chunk
-- ARGV[5] -> digest of the listing up to and including this chunk
-- ARGV[6] -> identity of the job, if that is known: a Redis that lost its data gives its number to another
-- ARGV[7...] -> descriptors
--
-- Returns 1, or 0 if nothing was taken: the chunk is already there, the listing is complete,
-- or the job is gone.
local job, base = ARGV[2], tonumber(ARGV[3])
local about = redis.call('HMGET', jobkey(job), 'total', 'parts', 'sealed')
if not is_that(job, ARGV[6]) or not about[1] or about[1] - (about[2] or 0) ~= base or about[3] == '1' then return 0 end

-- Parts came into being meanwhile, so a file's task is not its number in the listing.
local lines, tokens, n = {}, {}, tonumber(about[1])
for i = 7, #ARGV do
  lines[#lines + 1] = n
  lines[#lines + 1] = ARGV[i]
  tokens[#tokens + 1] = mint(job, n)
  n = n + 1
end
if #tokens > 0 then
  redis.call('HSET', jobkey(job, 'tasks'), unpack(lines))
  redis.call('LPUSH', jobkey(job, 'pending'), unpack(tokens))
end
redis.call('HSET', jobkey(job), 'digest', ARGV[5], 'listed_at', clock())
add(jobkey(job), 'total', #tokens)
add(jobkey(job), 'pending', #tokens)
add(jobkey(job), 'bytes', ARGV[4])
wake(job)
feed()
return 1
