-- Replace what a request had reserved by what it really used, once, and free its leases. A bucket may go below zero: the
-- debt is repaid by refill before anything new gets in. Settling twice, or settling what was never reserved, changes
-- no bucket and no budget.
--
-- KEYS[1]   reservation, as reserve.lua wrote it; deleted here
-- KEYS[2..] buckets, leases and budgets, in the order of the reservation
-- ARGV[1]   JSON: the buckets' [capacity, refill per second, w1, w2, w3, w4], as they were reserved with
-- ARGV[2]   JSON: the usage vector really used
-- ARGV[3]   milliseconds to remember a withdrawal when there is no reservation (its request may still be on the
--           way to Redis and must then be refused), 0 to remember nothing
-- and only where there are leases or budgets:
-- ARGV[4]   event id
-- ARGV[5]   how many leases there are
-- ARGV[6]   nano-USD that the request cost
-- returns   1 when this call settled it, 0 when there was nothing to settle
local spec = cjson.decode(ARGV[1])
local taken = redis.call('GET', KEYS[1])
local first = #spec + 1
if ARGV[4] then
  for i = 1, tonumber(ARGV[5]) do  -- also without a reservation: a renewal makes leases anew that Redis has lost
    first = first + 1
    redis.call('ZREM', KEYS[first], ARGV[4])
  end
end
if not taken or taken == '-' then
  if tonumber(ARGV[3]) > 0 then
    redis.call('SET', KEYS[1], '-', 'PX', ARGV[3])
  end
  return 0
end
redis.call('DEL', KEYS[1])
local now_ms = clock_ms()
local used = cjson.decode(ARGV[2])
local reserved = {}
for amount in string.gmatch(taken, '%S+') do
  reserved[#reserved + 1] = tonumber(amount)
end
for i = 1, #spec do
  local s = spec[i]
  local level, stored, at_ms = level_now(KEYS[i + 1], s, now_ms)
  local more = cost(s, used) - cost(s, reserved)
  if stored and stored > s[1] then  -- the limit was raised meanwhile: it is not this request's to cut
    redis.call('SET', KEYS[i + 1], string.format('%.17g %.17g', stored - more, at_ms), 'KEEPTTL')
  else
    store(KEYS[i + 1], s, math.min(level - more, s[1]), now_ms)
  end
end
if ARGV[4] then
  for i = first + 1, #KEYS, 2 do
    spend(KEYS[i], KEYS[i + 1], ARGV[4], reserved[5], tonumber(ARGV[6]))
  end
end
return 1
