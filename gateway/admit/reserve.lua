-- Reserve a usage vector in every bucket of one request, or say how long to wait. All or nothing; nothing is written
-- when refused. Atomic; the clock is Redis's own. Repeating a granted reservation changes nothing.
--
-- A usage vector is [requests, uncached input tokens, cached input tokens, output tokens]; a bucket charges the sum of
-- weight times amount.
--
-- KEYS[1]   reservation "r1 r2 r3 r4" (the vector taken), or "-": withdrawn before it arrived
-- KEYS[2..] buckets "level at_ms"; a missing one is full. All keys carry one {organization} tag
-- ARGV[1]   milliseconds after which a reservation that nobody settles stands as it is
-- ARGV[2]   JSON: one [capacity, refill per second, w1, w2, w3, w4] a bucket, in the order of KEYS
-- ARGV[3]   JSON: the usage vector
-- returns   {1, level...} when granted (levels after taking, rounded down)
--           {0, index of the bucket that takes longest, wait_ms, level...} when refused; index 0: withdrawn
local taken = redis.call('GET', KEYS[1])
if taken == '-' then
  return {0, 0, 0}
end
local now_ms = clock_ms()
local spec = cjson.decode(ARGV[2])
local vector = cjson.decode(ARGV[3])
local levels, costs = {}, {}
local longest_ms, longest = -1, 0
for i = 1, #spec do
  local s = spec[i]
  local level = level_now(KEYS[i + 1], s, now_ms)
  levels[i], costs[i] = level, cost(s, vector)
  if level < costs[i] then
    local wait_ms = math.ceil((costs[i] - level) / s[2] * 1000)
    if wait_ms > longest_ms then longest_ms, longest = wait_ms, i end
  end
end
local answer
if taken then
  answer = {1}
elseif longest > 0 then
  answer = {0, longest, longest_ms}
else
  answer = {1}
  for i = 1, #spec do
    levels[i] = levels[i] - costs[i]
    store(KEYS[i + 1], spec[i], levels[i], now_ms)
  end
  redis.call('SET', KEYS[1], table.concat(vector, ' '), 'PX', ARGV[1])
end
for i = 1, #levels do
  answer[#answer + 1] = math.floor(levels[i])
end
return answer
