-- A task is done: active -> done (and held -> active or pending, when it was the last part of a file).
--
-- ARGV[2] -> worker
-- ARGV[3] -> token
-- ARGV[4] -> bytes of the task; those of a part are known here, where its tail may have been taken
-- ARGV[5] -> host where the file lies
-- ARGV[6] -> of a part: "1" = it was written, "0" = its seal has to see to it
-- ARGV[7] -> of a part: its length as the worker was last told, or "". Where it has more now, Redis has lost
--            that its tail was taken, and the part goes back
-- ARGV[8] -> "nas" = the file is on the NAS; "id path" of the folder from which it has to get there; or ""
--
-- Returns 1 counted, 3 counted and the worker is to prepare the seal of the file (which it is told again
-- when it asks again), 0 stale: not in the worker's list, nothing is touched, or a part that goes back,
-- 2 already done.
local worker, token, host, written, owes = ARGV[2], ARGV[3], ARGV[5], ARGV[6], ARGV[8]
if owes ~= '' then redis.call('ZCARD', key('owed:' .. (string.match(owes, '^(%x+) ') or ''))) end
if not take(worker, token) then
  local job, task = split(token)
  if not job or redis.call('GETBIT', jobkey(job, 'done'), task) == 0 then return 0 end
  local _, _, seal = part_of(redis.call('HGET', jobkey(job, 'tasks'), task))
  local ours = seal and redis.call('HGET', jobkey(job, 'sealer'), seal) == worker
  return ours and redis.call('HEXISTS', jobkey(job, 'held'), seal) == 1 and 3 or 2
end
local job, task = known(token)
if not job then return 0 end
local line, now = redis.call('HGET', jobkey(job, 'tasks'), task) or '', clock()
local start, length, seal = part_of(line)
if length and tonumber(ARGV[7] ~= '' and ARGV[7] or length) < tonumber(length) then
  requeue(job, token)
  settle(job, now)
  feed()
  return 0
end

-- Hosts are numbered from 1 as they appear; two bytes per task say where it lies.
local function remember()
  local number = tonumber(redis.call('HGET', jobkey(job, 'hosts'), host) or 0)
  if number == 0 then
    number = redis.call('HLEN', jobkey(job, 'hosts')) + 1
    if number > 65535 then return end
    redis.call('HSET', jobkey(job, 'hosts'), host, number)
  end
  redis.call('SETRANGE', jobkey(job, 'where'), task * 2, string.char(math.floor(number / 256), number % 256))
end

local function owe()
  local folder, path = string.match(owes, '^(%x+) (.*)$')
  if folder then
    redis.call('ZADD', key('owed:' .. folder), now, token)
    redis.call('HSET', key('folders'), folder, path)
    add(jobkey(job), 'owed', 1)
  elseif owes == 'nas' then
    add(jobkey(job), 'delivered', 1)
    add(jobkey(job), 'bytes_delivered', string.match(line, '^(%d+)\t') or 0)
  end
end

-- The seal goes to the worker that has read the file's beginning already, if that one lives.
local function let_go(sealer)
  local epoch = string.match(redis.call('HGET', jobkey(job, 'seals'), seal) or '', '^%d+')
  local next = epoch and job .. '.' .. seal .. '.' .. epoch or mint(job, seal)
  redis.call('HDEL', jobkey(job, 'held'), seal)
  local lives = sealer and redis.call('ZSCORE', key('workers'), sealer)
  if lives and redis.call('HGET', jobkey(job), 'state') == 'running' then
    redis.call('LPUSH', key('active:' .. sealer), next)
    move(job, 'held', 'out')
  else
    redis.call('RPUSH', jobkey(job, 'pending'), next)
    move(job, 'held', 'pending')
    wake(job)
  end
end

-- Returns whether this worker is to prepare the seal: somebody has to, and nobody living does.
local function finish_part()
  local n = add(jobkey(job, 'records'), seal, 1)
  -- The part as it is known here: what its writer wrote beyond is others' to write.
  local range = written == '1' and start .. '+' .. length or ''
  redis.call('HSET', jobkey(job, 'records'), seal .. '.' .. (n - 1), range)
  add(jobkey(job), 'parts_done', 1)
  local sealer, missing = redis.call('HGET', jobkey(job, 'sealer'), seal), 1
  if redis.call('HEXISTS', jobkey(job, 'held'), seal) == 1 then missing = add(jobkey(job, 'held'), seal, -1) end
  if missing <= 0 then
    let_go(sealer)
  elseif not sealer or sealer == worker or not redis.call('ZSCORE', key('workers'), sealer) then
    redis.call('HSET', jobkey(job, 'sealer'), seal, worker)
    return true
  end
  return false
end

redis.call('SETBIT', jobkey(job, 'done'), task, 1)
absolve(job, task)
redis.call('HDEL', jobkey(job, 'home'), task)
sees(worker, job)
pcall(remember)   -- only `files` wants to know: it must not keep a job from ending
add(jobkey(job), 'bytes_done', length or ARGV[4])
move(job, 'out', 'done')
owe()
disown(job, task)
local seals = seal and finish_part()
feed()
settle(job, now)
return seals and 3 or 1
