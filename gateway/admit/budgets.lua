-- What the scripts share that know of budgets: this file is put before them. Money is in integer nano-USD.
--
-- A budget is a hash {spent, reserved, mended, rebuilt}: what settled requests cost, what those in flight may cost at
-- most, and how often it was corrected. It is missing until it has been summed up. Beside it, a sorted set has what each
-- request in flight holds of it, "event amount", by the time in milliseconds at which it lapses. What requests held that
-- were open when it was summed up is one hold, "rebuilt amount", whose amount the hash has, too.

-- At most so many lapsed reservations are cleared away by one call.
local LAPSED_MAX = 1000

-- Who holds what was open when a budget was summed up: no event's id.
local REBUILT = 'rebuilt'

local function write(key, spent, reserved)
  redis.call('HSET', key, 'spent', string.format('%.0f', spent), 'reserved', string.format('%.0f', reserved))
end

-- Count what lapsed reservations hold of a budget as spent: whoever made them is gone, and the ledger closes their events
-- at what they held. Returns what is spent and reserved then.
local function lapse(key, holds, spent, reserved, now_ms)
  local lapsed = redis.call('ZRANGEBYSCORE', holds, '-inf', string.format('%.3f', now_ms), 'LIMIT', 0, LAPSED_MAX)
  if #lapsed > 0 then
    for i = 1, #lapsed do
      local held = math.min(tonumber(string.match(lapsed[i], '%S+$')), reserved)
      spent, reserved = spent + held, reserved - held
    end
    redis.call('ZREM', holds, unpack(lapsed))
    write(key, spent, reserved)
  end
  return spent, reserved
end

-- {spent, reserved} of a budget, nil for a missing one. Where it cannot pay for `worst`, what has lapsed is looked for.
local function budget_now(key, holds, amount, worst, now_ms)
  local stored = redis.call('HMGET', key, 'spent', 'reserved')
  if not stored[1] then
    return nil
  end
  local spent, reserved = tonumber(stored[1]), tonumber(stored[2])
  if spent + reserved + worst > amount then
    spent, reserved = lapse(key, holds, spent, reserved, now_ms)
  end
  return {spent, reserved}
end

-- Take `amount` of a budget for an event, for `ttl_ms`.
local function hold(key, holds, event, amount, now_ms, ttl_ms)
  if amount > 0 then
    redis.call('HINCRBY', key, 'reserved', string.format('%.0f', amount))
    redis.call('ZADD', holds, string.format('%.3f', now_ms + ttl_ms), string.format('%s %.0f', event, amount))
    redis.call('PEXPIRE', holds, 2 * ttl_ms)
  end
end

-- Replace what an event holds of a budget by what it cost, unless its hold has lapsed: then that has been counted.
local function spend(key, holds, event, amount, cost)
  local stored = redis.call('HMGET', key, 'spent', 'reserved')
  if not stored[1] then
    return
  end
  local spent, reserved = tonumber(stored[1]), tonumber(stored[2])
  if amount > 0 then
    if redis.call('ZREM', holds, string.format('%s %.0f', event, amount)) == 1 then
      reserved = math.max(reserved - amount, 0)
    else
      spent = math.max(spent - amount, 0)
    end
  end
  write(key, spent + cost, reserved)
end

