-- Begin budgets with what they were summed up to be, where nobody else has begun them meanwhile. What requests of before
-- may yet cost is reserved, by one hold for all of them: those who made it cannot settle it, comparisons do.
--
-- KEYS      two a budget, as reserve.lua reads them, all under one {organization} tag
-- ARGV[1]   JSON: [nano-USD that is spent, nano-USD that open requests may cost, Unix time in milliseconds at which the
--           budget may be forgotten] of each, in the order of KEYS
-- ARGV[2]   milliseconds after which nothing of what is open now can still be running
-- returns   how many were begun
local sums = cjson.decode(ARGV[1])
local now_ms = clock_ms()
local begun = 0
for i = 1, #sums do
  local key, holds = KEYS[2 * i - 1], KEYS[2 * i]
  if redis.call('EXISTS', key) == 0 then
    local spent, open = sums[i][1], sums[i][2]
    redis.call('DEL', holds)  -- what was held is in the sum
    write(key, spent, 0)
    hold(key, holds, REBUILT, open, now_ms, ARGV[2])
    redis.call('HSET', key, REBUILT, string.format('%.0f', open))
    redis.call('PEXPIREAT', key, string.format('%.0f', sums[i][3]))
    begun = begun + 1
  end
end
return begun
