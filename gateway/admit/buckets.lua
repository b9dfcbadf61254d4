-- What reserve.lua and settle.lua share: this file is put before each of them.
--
-- A bucket's key holds "level at_ms": its level when it was last written, and when that was. A missing one is full.
-- A spec is [capacity, refill per second, weights...].

-- The time in milliseconds, by Redis's own clock: the only one there is.
local function clock_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + time[2] / 1000
end

-- The level of a bucket now, refilled; a clock step backwards counts as no time passing.
local function level_now(key, spec, now_ms)
  local stored = redis.call('GET', key)
  if not stored then
    return spec[1]
  end
  local space = string.find(stored, ' ', 1, true)
  local elapsed_ms = now_ms - tonumber(string.sub(stored, space + 1))
  if elapsed_ms < 0 then elapsed_ms = 0 end
  return math.min(tonumber(string.sub(stored, 1, space - 1)) + elapsed_ms / 1000 * spec[2], spec[1])
end

-- What a usage vector takes from a bucket.
local function cost(spec, vector)
  return spec[3] * vector[1] + spec[4] * vector[2] + spec[5] * vector[3] + spec[6] * vector[4]
end

-- Write a level. The key lives a minute longer than the bucket needs to be full, after which it may be forgotten; a
-- bucket that needs more than 31 years lives 31 years, since Redis takes no longer expiry than it can add to its clock.
local function store(key, spec, level, now_ms)
  local ttl_ms = math.min(math.ceil((spec[1] - level) / spec[2] * 1000) + 60000, 1e12)
  redis.call('SET', key, string.format('%.17g %.17g', level, now_ms), 'PX', ttl_ms)
end

