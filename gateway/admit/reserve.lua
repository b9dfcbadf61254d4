-- Reserve a usage vector in every bucket of one request, a place in every lease and money in every budget; or say what
-- it lacks. All or nothing. Atomic; the clock is Redis's own. Repeating a granted reservation changes nothing.
--
-- A usage vector is [requests, uncached input tokens, cached input tokens, output tokens]; a bucket charges the sum of
-- weight times amount. Money is in integer nano-USD. When refused, nothing is written but this: what reservations
-- that have lapsed still hold of a budget is moved to what is spent, since nobody will settle them.
--
-- KEYS[1]   reservation "r1 r2 r3 r4" (the vector taken) and what was taken of each budget, if any; or "-":
--           withdrawn before it arrived
-- KEYS[..]  buckets "level at_ms"; a missing one is full. All keys carry one {organization} or {model} tag
-- KEYS[..]  leases: sorted sets of event ids by the time they lapse at, in milliseconds
-- KEYS[..]  two a budget: the hash {spent, reserved}, and the sorted set of what is held: "event amount" by lapse
-- ARGV[1]   milliseconds after which a reservation that nobody settles stands as it is
-- ARGV[2]   JSON: one [capacity, refill per second, w1, w2, w3, w4] a bucket, in the order of KEYS
-- ARGV[3]   JSON: the usage vector
-- and only where there are leases or budgets:
-- ARGV[4]   event id
-- ARGV[5]   JSON: [milliseconds of a lease, wait_ms where a lease lacks, wait_ms where a budget does,
--           [places of each lease], [[amount, 1: a stream is given what is left, and for one that lapses when it is not
--           used: after how many milliseconds] of each budget]]
-- ARGV[6]   JSON: [the most that the request may cost, the least that it may be given of that where it is a stream]
-- returns   {1, level..., money taken, spent and reserved of each budget...} when granted (levels rounded down, the
--             money only with ARGV[4])
--           {0, index of the limit that takes longest, wait_ms, level...} when refused; index 0: withdrawn. Buckets,
--             leases and budgets are counted through, from 1
--           {-1, index} when that budget is spent, whatever comes back to it
--           {-2, index...} when nothing is known of these budgets: they must be summed up first
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

local leases, budgets, lease_ms, take, totals
if ARGV[4] then
  local wanted = cjson.decode(ARGV[6])
  local terms = cjson.decode(ARGV[5])
  lease_ms, leases, budgets = terms[1], terms[4], terms[5]
  if wanted[1] == 0 then budgets = {} end  -- what costs nothing needs none
  for i = 1, #leases do
    if redis.call('ZCOUNT', KEYS[#spec + 1 + i], string.format('(%.3f', now_ms), '+inf') >= leases[i]
        and terms[2] > longest_ms then
      longest_ms, longest = terms[2], #spec + i
    end
  end
  local first = #spec + #leases
  local states, unknown = {}, {-2}
  take, totals = wanted[1], {}
  for i = 1, #budgets do
    states[i] = budget_now(KEYS[first + 2 * i], KEYS[first + 2 * i + 1], budgets[i][1], wanted[1], now_ms)
    if not states[i] then
      unknown[#unknown + 1] = first + i
    else
      totals[i] = states[i][1] + states[i][2]
      if budgets[i][2] == 1 then take = math.min(take, budgets[i][1] - totals[i]) end
    end
  end
  if taken then
    take = tonumber(string.match(taken, '%S+$'))
  else
    if #unknown > 1 then
      return unknown
    end
    take = math.max(take, wanted[2])
    for i = 1, #budgets do
      if states[i][1] + take > budgets[i][1] then
        return {-1, first + i}
      end
      if totals[i] + take > budgets[i][1] and terms[3] > longest_ms then
        longest_ms, longest = terms[3], first + i
      end
    end
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
  local record = table.concat(vector, ' ')
  if ARGV[4] then
    for i = 1, #leases do
      local key = KEYS[#spec + 1 + i]
      redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('%.3f', now_ms))
      redis.call('ZADD', key, string.format('%.3f', now_ms + lease_ms), ARGV[4])
      redis.call('PEXPIRE', key, 2 * lease_ms)
    end
    for i = 1, #budgets do
      hold(KEYS[#spec + #leases + 2 * i], KEYS[#spec + #leases + 2 * i + 1], ARGV[4], take, now_ms, ARGV[1])
      totals[i] = totals[i] + take
      if budgets[i][3] then
        redis.call('PEXPIRE', KEYS[#spec + #leases + 2 * i], budgets[i][3])
      end
    end
    record = string.format('%s %.0f', record, take)
  end
  redis.call('SET', KEYS[1], record, 'PX', ARGV[1])
end
for i = 1, #levels do
  answer[#answer + 1] = math.floor(levels[i])
end
if totals and answer[1] == 1 then
  answer[#answer + 1] = take
  for i = 1, #budgets do
    answer[#answer + 1] = totals[i] or 0
  end
end
return answer
