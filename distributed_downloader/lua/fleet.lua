-- What the living workers say of themselves, for `status`; only reads.
--
-- Returns {now, "end words", "end words" ...}: the time at which each one's lease ends, a blank, and its words, which
-- may be gone.
local out = {clock()}
local found = redis.call('ZRANGEBYSCORE', key('workers'), '(' .. clock(), '+inf', 'WITHSCORES')
for first = 1, #found, 2000 do
  local last, names = math.min(first + 1999, #found), {}
  for i = first, last, 2 do names[#names + 1] = key('worker:' .. found[i]) end
  for n, words in ipairs(redis.call('MGET', unpack(names))) do
    out[#out + 1] = found[first + 2 * n - 1] .. ' ' .. (words or '')
  end
end
return out
