-- Replace what a request had reserved by what it really used, once. A bucket may go below zero: the debt is repaid by
-- refill before anything new gets in. Settling twice, or settling what was never reserved, changes no bucket.
--
-- KEYS[1]   reservation, as reserve.lua wrote it; deleted here
-- KEYS[2..] buckets, in the order of the reservation
-- ARGV[1]   JSON: the buckets' [capacity, refill per second, w1, w2, w3, w4], as they were reserved with
-- ARGV[2]   JSON: the usage vector really used
-- ARGV[3]   milliseconds to remember a withdrawal when there is no reservation (its request may still be on the
--           way to Redis and must then be refused), 0 to remember nothing
-- returns   1 when this call settled it, 0 when there was nothing to settle
local taken = redis.call('GET', KEYS[1])
if not taken or taken == '-' then
  if tonumber(ARGV[3]) > 0 then
    redis.call('SET', KEYS[1], '-', 'PX', ARGV[3])
  end
  return 0
end
redis.call('DEL', KEYS[1])
local now_ms = clock_ms()
local spec = cjson.decode(ARGV[1])
local used = cjson.decode(ARGV[2])
local reserved = {}
for amount in string.gmatch(taken, '%S+') do
  reserved[#reserved + 1] = tonumber(amount)
end
for i = 1, #spec do
  local s = spec[i]
  local level = level_now(KEYS[i + 1], s, now_ms) - (cost(s, used) - cost(s, reserved))
  store(KEYS[i + 1], s, math.min(level, s[1]), now_ms)
end
return 1
