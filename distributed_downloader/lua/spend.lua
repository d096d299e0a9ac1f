-- A worker takes some of the requests that a hub allows to an account, and says what the hub told it.
--
-- ARGV[2], ARGV[3] -> account, bucket
-- ARGV[4] -> endpoint
-- ARGV[5], ARGV[6] -> requests left as the hub told, without the spare ones; ms until the window has ended by then
-- ARGV[7], ARGV[8] -> requests of a window without the spare ones; of all that the hub told
-- ARGV[9] -> ms of a window
-- ARGV[10], ARGV[11] -> worker; how many requests it has in hand or on their way
-- ARGV[12] -> how many it wants
--
-- Returns {requests that may be sent, ms until a new window begins, ms for which there are no more}.
--
-- What the hub told last counts all that was answered; what workers have out comes on top of that.  `turned` is 0
-- in a window of which the hub has told; else it is the time at which it began by our clock.
local ROUNDING = 1000   -- what the hub's whole seconds may be off
local MOST = 20000      -- budgets that are kept: a hub may name another bucket in each answer
local name, worker = ARGV[2] .. ':' .. ARGV[3], ARGV[10]
local place, outs, now = key('budget:' .. name), key('out:' .. name), clock()
local told, told_end, full, window = number(ARGV[5]), now + number(ARGV[6]), number(ARGV[7]), number(ARGV[9])
local found = redis.call('HMGET', place, 'left', 'ends', 'turned', 'out')
local left, ends, turned, out = number(found[1]), number(found[2]), number(found[3]), number(found[4])

-- A new window: what workers have out, they will say again; the dead will not.
local function turn(n, till, at)
  left, ends, turned, out = n, till, at, 0
  redis.call('DEL', outs)
end

-- What the hub told, unless that was of a window that is over.  Others use the account too: the lower counts.
if ends == 0 or ends > now + window + 2 * ROUNDING or (turned == 0 and told_end >= ends + window / 2) then
  turn(told, told_end, 0)
elseif told_end > (turned > 0 and turned + ROUNDING or ends - window / 2) then
  left, ends, turned = math.min(left, told), math.min(ends, told_end), 0
end
if now >= ends then turn(full, now + window + ROUNDING, now) end

-- The less is left, and the more workers there are, the smaller the handful: so nobody keeps what others need.
local workers = math.max(1, redis.call('ZCARD', key('workers')))
left, out = math.max(0, math.min(left, full)), math.max(0, out - number(redis.call('HGET', outs, worker)))
local own = number(ARGV[11])
local free = math.max(0, left - out - own)
local count = math.min(free, math.max(1, math.floor(free / (4 * workers))), number(ARGV[12]))
local rest = 0
if count == 0 and left > 0 then rest = 200 + 5 * workers elseif count == 0 then rest = ends - now end

redis.call('HSET', outs, worker, own + count)
redis.call('PEXPIRE', outs, ends - now + window)
redis.call('HSET', place, 'left', left, 'ends', ends, 'turned', turned, 'out', out + own + count,
  'quota', ARGV[8], 'endpoint', ARGV[4])
redis.call('PEXPIRE', place, ends - now + window)
local over = redis.call('ZRANGEBYSCORE', key('budgets'), '-inf', now)
if #over > 0 then redis.call('ZREM', key('budgets'), unpack(over, 1, math.min(#over, 100))) end
redis.call('ZADD', key('budgets'), ends, name)
if redis.call('ZCARD', key('budgets')) > MOST then
  local longest = redis.call('ZREVRANGE', key('budgets'), 0, 0)[1]
  redis.call('ZREM', key('budgets'), longest)
  redis.call('DEL', key('budget:' .. longest), key('out:' .. longest))
end
return {count, ends - now, rest}
