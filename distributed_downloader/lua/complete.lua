-- Tasks are done: active -> done (and held -> active or pending, when it was the last part of a file).
--
-- ARGV[2] -> worker
-- ARGV[3] -> host where the files lie
-- and for each task:
-- ARGV[4] -> token
-- ARGV[5] -> bytes of the task; those of a part are known here, where its tail may have been taken
-- ARGV[6] -> of a part: "1" = it was written, "0" = its seal has to see to it
-- ARGV[7] -> of a part: its length as the worker was last told, or "". Where it has more now, Redis has lost
--            that its tail was taken, and the part goes back
-- ARGV[8] -> "nas" = the file is on the NAS; "id path" of the folder from which it has to get there; or ""
--
-- Returns for each task 1 counted, 3 counted and the worker is to prepare the seal of the file (which it is told
-- again when it asks again), 0 stale: not in the worker's list, nothing is touched, or a part that goes back,
-- 2 already done.
local worker, host, answers, touched, done = ARGV[2], ARGV[3], {}, {}, {}

-- Hosts are numbered from 1 as they appear.
local function number_of_host(job)
  local number = tonumber(redis.call('HGET', jobkey(job, 'hosts'), host) or 0)
  if number == 0 then
    number = redis.call('HLEN', jobkey(job, 'hosts')) + 1
    if number > 65535 then return nil end
    redis.call('HSET', jobkey(job, 'hosts'), host, number)
  end
  return number
end

-- A number in so many bytes.
local function bytes_of(number, count)
  local text = ''
  for _ = 1, count do
    text, number = string.char(number % 256) .. text, math.floor(number / 256)
  end
  return text
end

-- Six bytes per task say where it lies, and how many seconds after the job was made it was done.
local function remember(job, task)
  local sum = done[job]
  if sum.where == nil then   -- once for all that is done here and now
    local host = number_of_host(job)
    local second = math.floor((clock() - number(redis.call('HGET', jobkey(job), 'created_at'))) / 1000)
    sum.where = host and bytes_of(host, 2) .. bytes_of(math.min(math.max(second, 0), 2 ^ 32 - 1), 4) or false
  end
  if sum.where then redis.call('SETRANGE', jobkey(job, 'where'), task * 6, sum.where) end
end

-- What was done of a job here: how many tasks, their bytes, and whether any of it ever was in trouble, or in parts.
local function sum_of(job)
  if not done[job] then
    local kept = {}
    for i, part in ipairs({'why', 'tries', 'home', 'blind', 'seals'}) do kept[i] = jobkey(job, part) end
    redis.call('GETBIT', jobkey(job, 'done'), 0)   -- one of a wrong type is met before a token is taken
    done[job] = {n = 0, bytes = 0, marked = redis.call('EXISTS', unpack(kept)) > 0}
  end
  return done[job]
end

local function owe(job, token, line, owes)
  local folder, path = string.match(owes, '^(%x+) (.*)$')
  if folder then
    redis.call('ZADD', key('owed:' .. folder), clock(), token)
    redis.call('HSET', key('folders'), folder, path)
    add(jobkey(job), 'owed', 1)
  elseif owes == 'nas' then
    add(jobkey(job), 'delivered', 1)
    add(jobkey(job), 'bytes_delivered', string.match(line, '^(%d+)\t') or 0)
  end
end

-- The seal goes to the worker that has read the file's beginning already, if that one lives.
local function let_go(job, seal, sealer)
  local epoch = string.match(redis.call('HGET', jobkey(job, 'seals'), seal) or '', '^%d+')
  local token = epoch and job .. '.' .. seal .. '.' .. epoch or mint(job, seal)
  redis.call('HDEL', jobkey(job, 'held'), seal)
  local lives = sealer and redis.call('ZSCORE', key('workers'), sealer)
  if lives and redis.call('HGET', jobkey(job), 'state') == 'running' then
    redis.call('LPUSH', key('active:' .. sealer), token)
    move(job, 'held', 'out')
  else
    redis.call('RPUSH', jobkey(job, 'pending'), token)
    move(job, 'held', 'pending')
    wake(job)
  end
end

-- Returns whether this worker is to prepare the seal: somebody has to, and nobody living does.
local function finish_part(job, seal, range)
  local n = add(jobkey(job, 'records'), seal, 1)
  redis.call('HSET', jobkey(job, 'records'), seal .. '.' .. (n - 1), range)
  add(jobkey(job), 'parts_done', 1)
  local sealer, missing = redis.call('HGET', jobkey(job, 'sealer'), seal), 1
  if redis.call('HEXISTS', jobkey(job, 'held'), seal) == 1 then missing = add(jobkey(job, 'held'), seal, -1) end
  if missing <= 0 then
    let_go(job, seal, sealer)
  elseif not sealer or sealer == worker or not redis.call('ZSCORE', key('workers'), sealer) then
    redis.call('HSET', jobkey(job, 'sealer'), seal, worker)
    return true
  end
  return false
end

-- What a report that comes again is told, and one that is stale.
local function again(token)
  local job, task = split(token)
  if not job or redis.call('GETBIT', jobkey(job, 'done'), task) == 0 then return 0 end
  touched[job] = true   -- for the first one may have ended half-way
  local _, _, seal = part_of(redis.call('HGET', jobkey(job, 'tasks'), task))
  local ours = seal and redis.call('HGET', jobkey(job, 'sealer'), seal) == worker
  return ours and redis.call('HEXISTS', jobkey(job, 'held'), seal) == 1 and 3 or 2
end

-- Whole files that owe nothing touch no key that others share, so that nothing needs to be looked at before: what
-- may go wrong comes when they are counted.
local function complete(token, bytes, written, told, owes)
  local job, task = split(token)
  local line = job and redis.call('HGET', jobkey(job, 'tasks'), task) or ''
  local start, length, seal = part_of(line)
  if start or owes ~= '' then probe() end
  if owes ~= '' then redis.call('ZCARD', key('owed:' .. (string.match(owes, '^(%x+) ') or ''))) end
  if job then sum_of(job) end
  if redis.call('LREM', key('active:' .. worker), 1, token) == 0 then return again(token) end
  job, task = known(token)
  if start or not job then untail(token) end
  if not job then return 0 end
  local sum = sum_of(job)
  if length and tonumber(told ~= '' and told or length) < tonumber(length) then
    requeue(job, token)
    touched[job] = true
    return 0
  end
  redis.call('SETBIT', jobkey(job, 'done'), task, 1)
  sum.n, sum.bytes = sum.n + 1, sum.bytes + (length or bytes)
  if sum.marked then
    absolve(job, task)
    redis.call('HDEL', jobkey(job, 'home'), task)
    sees(worker, job)
    disown(job, task)
  end
  if string.find(line, '\tclosing=', 1, true) then add(jobkey(job), 'closed', 1) end
  pcall(remember, job, task)   -- only `files` wants to know: it must not keep a job from ending
  owe(job, token, line, owes)
  -- The part as it is known here: what its writer wrote beyond is others' to write.
  return seal and finish_part(job, seal, written == '1' and start .. '+' .. length or '') and 3 or 1
end

-- A job may have come to its end where none of its tasks is out. Returns whether anything was counted.
local function count()
  local any = false
  for job, sum in pairs(done) do
    if sum.n > 0 then
      any = true
      add(jobkey(job), 'bytes_done', sum.bytes)
      if move(job, 'out', 'done', sum.n) <= 0 then touched[job] = true end
    end
  end
  return any
end

local function complete_all()
  for i = 4, #ARGV, 5 do
    answers[#answers + 1] = complete(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4])
  end
end

local all, problem = pcall(complete_all)
local counted = count()   -- also what was done before a problem: that is reported again, and must be found to be done
if not all then error(problem, 0) end
if counted then feed() end
for job in pairs(touched) do settle(job, clock()) end
return answers
