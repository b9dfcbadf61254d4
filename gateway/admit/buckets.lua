-- What the scripts share that know of buckets, and the clock: this file is put before them.
--
-- A bucket's key holds "level at_ms": its level when it was last written, and when that was. A missing one is full.
-- A spec is [capacity, refill per second, weights...].

-- The time in milliseconds, by Redis's own clock: the only one there is.
local function clock_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + time[2] / 1000
end

-- The level of a bucket now, refilled; then its level as it was written, and when, nil for a missing one. A clock step
-- backwards counts as no time passing.
local function level_now(key, spec, now_ms)
  local stored = redis.call('GET', key)
  if not stored then
    return spec[1]
  end
  local space = string.find(stored, ' ', 1, true)
  local at_ms = tonumber(string.sub(stored, space + 1))
  local elapsed_ms = now_ms - at_ms
  if elapsed_ms < 0 then elapsed_ms = 0 end
  local level = tonumber(string.sub(stored, 1, space - 1))
  return math.min(level + elapsed_ms / 1000 * spec[2], spec[1]), level, at_ms
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

