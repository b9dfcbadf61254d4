-- Renew leases, or make them anew where Redis has lost them; or release them.
--
-- KEYS      leases, as reserve.lua writes them, all under one {organization} or {model} tag
-- ARGV[1]   milliseconds that a lease lasts from now on, 0 to release them
-- ARGV[2]   JSON: of each lease, in the order of KEYS, the event ids that hold a place
-- returns   how many places were made anew, or released
local lease_ms = tonumber(ARGV[1])
local events = cjson.decode(ARGV[2])
local lapse_ms = string.format('%.3f', clock_ms() + lease_ms)
local changed = 0
for i = 1, #KEYS do
  if lease_ms > 0 then
    local places = {}
    for j = 1, #events[i] do
      places[2 * j - 1], places[2 * j] = lapse_ms, events[i][j]
    end
    changed = changed + redis.call('ZADD', KEYS[i], unpack(places))
    redis.call('PEXPIRE', KEYS[i], 2 * lease_ms)
  else
    changed = changed + redis.call('ZREM', KEYS[i], unpack(events[i]))
  end
end
return changed
