-- A busy worker takes small files that lie ready, to save round trips: ready -> active, and begun.
--
-- ARGV[2] -> worker
-- ARGV[3] -> how many at most; of the last that there are, no more than its share
-- ARGV[4] -> bytes that such a file has at most
--
-- Returns {{token, what `begun` returns...}...}; a spec is "=" where it is that of the task before. Empty when
-- something else is next, which goes to whoever waits for it, or when the worker was declared dead.
local worker, small, found, before = ARGV[2], tonumber(ARGV[4]), {}, nil

-- Job and descriptor of a token, if it is one of a small file.
local function small_file(token)
  local job, task = split(token)
  local line = job and redis.call('HGET', jobkey(job, 'tasks'), task) or ''
  local size = tonumber(string.match(line, '^(%d+)\t'))
  local other = string.find(line, '\tplace=') or string.find(line, '\tclosing=')
  if size and size <= small and not other then return {job, line} end
end

-- The tokens that are next, as long as they are of small files, with what these are.
local function next_small(most)
  local tokens, files = {}, {}
  local ready = most > 0 and redis.call('LRANGE', key('ready'), -most, -1) or {}
  for i = #ready, 1, -1 do
    local file = small_file(ready[i])
    if not file then break end
    tokens[#tokens + 1], files[#files + 1] = ready[i], file
  end
  return tokens, files
end

-- Take the next small files, as many as that; returns how many there were.
local function claim(most)
  local tokens, files = next_small(most)
  if #tokens > 0 then
    redis.call('LPUSH', key('active:' .. worker), unpack(tokens))   -- first: if it is no list, nothing is moved
    redis.call('LTRIM', key('ready'), 0, -#tokens - 1)
  end
  for i, token in ipairs(tokens) do
    local task, job = begun(worker, token, files[i][2]), files[i][1]
    if task then
      if job == before then task[2] = '=' end
      before = job
      table.insert(task, 1, token)
      found[#found + 1] = task
    end
  end
  feed()
  return #tokens
end

if not lives(worker) then return found end
local left = tonumber(ARGV[3])
while redis.call('ZCARD', key('fair')) > 0 and left > 0 do   -- there is enough for everybody
  local taken = claim(left)
  if taken == 0 then return found end
  left = left - taken
end
local workers = redis.call('ZCOUNT', key('workers'), clock(), '+inf')
claim(math.min(left, math.ceil(redis.call('LLEN', key('ready')) / math.max(workers, 1))))
return found
